"""`--memory` and `--kv-dtype`: where the chunks live, and as what."""

import argparse
from collections.abc import Sequence
from typing import NamedTuple

from hsa_jax.cli.flags import read_member
from hsa_jax.evaluation.lengths import FlagError
from hsa_jax.memory import Home, KvDtype


class MemoryChoice(NamedTuple):
  """What was asked for; see `memory.plan_memory`."""

  home: Home = Home.HOST
  kv_dtype: KvDtype = KvDtype.COMPUTED


def add_memory_flags(parser: argparse._ActionsContainer, *, homes: str) -> None:
  """Adds both flags to a parser or a group; `homes` describes the choice."""
  parser.add_argument(
    "--memory",
    default=str(MemoryChoice().home),
    help=f"where chunks live: {homes}",
  )
  parser.add_argument(
    "--kv-dtype",
    default=str(MemoryChoice().kv_dtype),
    help="of keys and values in host or disk: computed, bfloat16, int8",
  )


def read_memory(
  values: argparse.Namespace, homes: Sequence[Home] = tuple(Home)
) -> MemoryChoice:
  """The choice of a command line, among `homes`.

  Raises:
    FlagError: naming all that is wrong, one line each.
  """
  home, kv_dtype = MemoryChoice()
  problems: list[str] = []
  try:
    home = read_member("--memory", values.memory, homes)
  except FlagError as error:
    problems += error.problems
  try:
    kv_dtype = read_member("--kv-dtype", values.kv_dtype, tuple(KvDtype))
  except FlagError as error:
    problems += error.problems
  if problems:
    raise FlagError(problems)
  return MemoryChoice(home, kv_dtype)
