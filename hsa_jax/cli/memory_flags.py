"""`--memory` and `--kv-dtype`: where the chunks live, and as what."""

import argparse
from typing import NamedTuple

from hsa_jax.cli.flags import read_names
from hsa_jax.evaluation.lengths import FlagError
from hsa_jax.memory import Home, KvDtype


class MemoryChoice(NamedTuple):
  """What was asked for; see `memory.plan_memory`."""

  home: Home = Home.HOST
  kv_dtype: KvDtype = KvDtype.COMPUTED


def add_memory_flags(parser: argparse.ArgumentParser, *, disk: str) -> None:
  """Adds both flags; `disk` says where the disk home keeps its file."""
  parser.add_argument(
    "--memory",
    default=str(MemoryChoice().home),
    help=f"where chunks live: host (RAM), disk ({disk}), device, auto",
  )
  parser.add_argument(
    "--kv-dtype",
    default=str(MemoryChoice().kv_dtype),
    help="of keys and values in host or disk: computed, bfloat16, int8",
  )


def read_memory(values: argparse.Namespace) -> MemoryChoice:
  """The choice of a command line.

  Raises:
    FlagError: naming all that is wrong, one line each.
  """
  homes = [str(home) for home in Home if home is not Home.SHARDED]
  stored = [str(kind) for kind in KvDtype]
  problems: list[str] = []
  chosen = []
  for flag, text, known in (
    ("--memory", values.memory, homes),
    ("--kv-dtype", values.kv_dtype, stored),
  ):
    try:
      chosen.append(read_names(flag, text, known)[0])
    except FlagError as error:
      problems += error.problems
  if problems:
    raise FlagError(problems)
  return MemoryChoice(Home(chosen[0]), KvDtype(chosen[1]))
