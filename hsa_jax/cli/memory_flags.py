"""`--memory`, `--kv-dtype`, `--kv-place`: where chunks live, and as what."""

import argparse
import enum
from typing import NamedTuple, TypeVar

from hsa_jax.cli.flags import read_member
from hsa_jax.evaluation.lengths import FlagError
from hsa_jax.memory import Home, KvDtype, KvPlace

E = TypeVar("E", bound=enum.StrEnum)


class MemoryChoice(NamedTuple):
  """What was asked for; see `memory.plan_memory`."""

  home: Home = Home.HOST
  kv_dtype: KvDtype = KvDtype.COMPUTED
  kv_place: KvPlace = KvPlace.DEVICE


def add_memory_flags(parser: argparse._ActionsContainer, *, homes: str) -> None:
  """Adds the flags to a parser or a group; `homes` describes the choice."""
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
  parser.add_argument(
    "--kv-place",
    default=str(MemoryChoice().kv_place),
    help="of keys and values with --memory=sharded: device, or pinned_host (in"
    " RAM, read from there; only landmarks take memory of the devices)",
  )


def read_memory(values: argparse.Namespace) -> MemoryChoice:
  """The choice of a command line.

  Raises:
    FlagError: naming all that is wrong, one line each.
  """
  problems: list[str] = []

  def choose(flag: str, default: E) -> E:
    text = vars(values)[flag.replace("-", "_")]
    try:
      return read_member(f"--{flag}", text, tuple(type(default)))
    except FlagError as error:
      problems.extend(error.problems)
      return default

  unset = MemoryChoice()
  choice = MemoryChoice(
    choose("memory", unset.home),
    choose("kv-dtype", unset.kv_dtype),
    choose("kv-place", unset.kv_place),
  )
  home, _, place = choice
  if place is not KvPlace.DEVICE and home is not Home.SHARDED and not problems:
    problems.append(
      f"--kv-place={place} with --memory={home}: only the sharded home has a"
      " choice; add --memory=sharded"
    )
  if problems:
    raise FlagError(problems)
  return choice
