"""Command lines whose errors are one message that names the flag."""

import argparse
import contextlib
import difflib
import enum
from collections.abc import Iterator, Sequence
from typing import NoReturn, TypeVar

from hsa_jax.config import ModelConfig
from hsa_jax.evaluation.lengths import FlagError

E = TypeVar("E", bound=enum.StrEnum)


class Parser(argparse.ArgumentParser):
  """Raises `FlagError` in place of printing the usage."""

  def error(self, message: str) -> NoReturn:
    raise FlagError([f"{message}; see --help"])


def read_names(flag: str, text: str, known: Sequence[str]) -> tuple[str, ...]:
  """`"a,b"` -> ("a", "b"), without repetition.

  Raises:
    FlagError: for names that are not known, with the nearest that is.
  """
  names = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
  problems = []
  for name in names:
    if name not in known:
      close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
      hint = f"; did you mean {close[0]!r}?" if close else ""
      problems.append(
        f"{flag}: {name!r} is not one of {', '.join(known)}{hint}"
      )
  if problems:
    raise FlagError(problems)
  return names


def read_member(flag: str, text: str, kinds: Sequence[E]) -> E:
  """The one member of an enumeration that `text` names.

  Raises:
    FlagError: for any other text, or several names.
  """
  by_name = {str(kind.value): kind for kind in kinds}
  names = read_names(flag, text, list(by_name))
  if len(names) != 1:
    raise FlagError([f"{flag}={text}: takes one of {', '.join(by_name)}"])
  return by_name[names[0]]


@contextlib.contextmanager
def as_flag_errors() -> Iterator[None]:
  """Makes a `FlagError` of a `ValueError` that names flags by itself."""
  try:
    yield
  except ValueError as error:
    raise FlagError([str(error)]) from error


def whole_chunks(segment: int, model: ModelConfig, default: int) -> int:
  """Tokens of a segment: the default is cut down to whole chunks.

  Raises:
    FlagError: for another number that is no multiple of the chunk size.
  """
  chunk = model.hsa.chunk_size if model.hsa.num_groups else 1
  if segment % chunk == 0:
    return segment
  if segment == default > chunk:
    return segment // chunk * chunk
  near = max(round(segment / chunk), 1) * chunk
  raise FlagError(
    [
      f"--segment={segment}: must be a multiple of the chunk size {chunk};"
      f" nearest: {near}"
    ]
  )
