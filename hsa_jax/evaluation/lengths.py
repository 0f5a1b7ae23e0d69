"""Context lengths as people write them: 256, 4K, 1M (K = 1024)."""

import re
from typing import NamedTuple

_UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}


class FlagError(ValueError):
  """One or more bad command line flags.

  Attributes:
    problems: one line each: the flag, its value, the rule, a fix.
  """

  def __init__(self, problems: list[str]):
    self.problems = list(problems)
    super().__init__("\n".join(self.problems))


class SampleCount(NamedTuple):
  """From `length` tokens on, `count` samples."""

  length: int
  count: int


def parse_length(text: str, flag: str = "--lengths") -> int:
  """`"64K"` -> 65536.

  Raises:
    FlagError: unless it is a positive whole number with K, M, G or nothing.
  """
  match = re.fullmatch(r"([0-9]+)([KMG]?)", text.strip().upper())
  if not match or int(match[1]) < 1:
    raise FlagError(
      [f"{flag}: {text!r} is not a length; write tokens as 256, 4K or 1M"]
    )
  return int(match[1]) * _UNITS[match[2]]


def parse_lengths(text: str, flag: str = "--lengths") -> tuple[int, ...]:
  """`"256,1K"` -> (256, 1024); ascending, without repetition."""
  return tuple(sorted({parse_length(part, flag) for part in text.split(",")}))


def format_length(length: int) -> str:
  """1048576 -> `1M`; 1000 -> `1000`."""
  for unit in ("G", "M", "K"):
    if length >= _UNITS[unit] and length % _UNITS[unit] == 0:
      return f"{length // _UNITS[unit]}{unit}"
  return str(length)


def parse_samples(
  text: str, flag: str = "--samples"
) -> tuple[SampleCount, ...]:
  """`"20,256K:10"` -> 20 samples per length, 10 from 256K tokens on.

  Raises:
    FlagError: for anything else.
  """
  counts = []
  for part in text.split(","):
    head, _, tail = part.strip().rpartition(":")
    if not tail.isdecimal() or int(tail) < 1:
      raise FlagError(
        [f"{flag}: {part!r}: write a count as 20, or LENGTH:COUNT as 256K:10"]
      )
    length = parse_length(head, flag) if head else 1
    counts.append(SampleCount(length, int(tail)))
  counts.sort()
  if counts[0].length > 1:
    raise FlagError([f"{flag}: {text!r} has no count for short lengths; as 20"])
  return tuple(counts)


def samples_at(counts: tuple[SampleCount, ...], length: int) -> int:
  """Number of samples at a context length."""
  return [c.count for c in counts if c.length <= length][-1]
