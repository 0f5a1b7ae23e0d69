"""`--memory`, `--kv-dtype`, `--kv-place`: where chunks live, and as what."""

import argparse
import enum
from collections.abc import Sequence
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


def read_memory(
  values: argparse.Namespace, homes: Sequence[Home] = tuple(Home)
) -> MemoryChoice:
  """The choice of a command line, among `homes`.

  Raises:
    FlagError: naming all that is wrong, one line each.
  """
  problems: list[str] = []

  def choose(flag: str, default: E, among: Sequence[E]) -> E:
    text = vars(values)[flag.replace("-", "_")]
    try:
      return read_member(f"--{flag}", text, among)
    except FlagError as error:
      problems.extend(error.problems)
      return default

  unset = MemoryChoice()
  choice = MemoryChoice(
    choose("memory", unset.home, homes),
    choose("kv-dtype", unset.kv_dtype, tuple(KvDtype)),
    choose("kv-place", unset.kv_place, tuple(KvPlace)),
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
