"""Command lines whose errors are one message that names the flag."""

import argparse
from typing import NoReturn

from hsa_jax.evaluation.lengths import FlagError


class Parser(argparse.ArgumentParser):
  """Raises `FlagError` in place of printing the usage."""

  def error(self, message: str) -> NoReturn:
    raise FlagError([f"{message}; see --help"])
