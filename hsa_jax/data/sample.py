"""Samples of any length: what an evaluation asks of them, and how they are cut.

A sample is never an array. It is a recipe that renders any stretch of its
tokens, so 32M tokens cost as much memory as one segment.
"""

import bisect
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Int

NOWHERE = -1  # in `Answer.sources`: no single place holds this token


class Answer(NamedTuple):
  """What a teacher-forced sample asks for.

  Attributes:
    positions: index in the sample of each answer token, ascending.
    gold: the answer tokens.
    sources: index in the sample of the token that each of them repeats or
      follows from; `NOWHERE` where there is no single one.
  """

  positions: Int[np.ndarray, " n"]
  gold: Int[np.ndarray, " n"]
  sources: Int[np.ndarray, " n"]


class Sample(Protocol):
  """A sequence of tokens, rendered by the stretch."""

  @property
  def length(self) -> int:
    """Number of tokens."""
    ...

  @property
  def depth(self) -> float:
    """Relative depth in [0, 1] of what is looked for first."""
    ...

  @property
  def unique_fraction(self) -> float:
    """Share of the filler that does not repeat earlier filler."""
    ...

  def segment(self, start: int, stop: int) -> Int[np.ndarray, " n"]:
    """Tokens `start .. stop - 1`, int32.

    Raises:
      ValueError: the range is not inside the sample.
    """
    ...

  def describe(self) -> dict[str, Any]:
    """The recipe as plain numbers and strings, for a line of JSON."""
    ...


class ForcedSample(Sample, Protocol):
  """A sample that ends with its answer and eos, scored in one pass."""

  @property
  def answer(self) -> Answer:
    """Where the answer tokens are, and what they repeat."""
    ...


class Prompt(Sample, Protocol):
  """A sample that is continued by generation.

  `length + max_new_tokens` is the context length asked for.
  """

  @property
  def max_new_tokens(self) -> int:
    """Room for the answer."""
    ...

  @property
  def references(self) -> tuple[str, ...]:
    """What the answer should contain; the suite's metric says how."""
    ...

  @property
  def evidence(self) -> tuple[int, ...]:
    """Indices of tokens that lie in what must be found."""
    ...


class Piece(NamedTuple):
  """Tokens that interrupt the filler.

  Attributes:
    position: index in the sample of the first of them.
    tokens: int32.
  """

  position: int
  tokens: Int[np.ndarray, " n"]


class Splice:
  """Filler out of a ring, with pieces inserted: the body of most samples.

  Attributes:
    length: tokens, pieces included.
  """

  def __init__(
    self,
    ring: Int[np.ndarray, " n"],
    start: int,
    pieces: Sequence[Piece],
    length: int,
  ):
    """Places the pieces.

    Args:
      ring: filler tokens, going on at the beginning after the end.
      start: index in the ring of the first filler token.
      pieces: in the order of their positions, without overlap.
      length: tokens of the whole.

    Raises:
      ValueError: pieces overlap or stick out.
    """
    self.length = length
    self._ring, self._start, self._pieces = ring, start, tuple(pieces)
    self._ends = [p.position + len(p.tokens) for p in pieces]
    starts = [p.position for p in pieces]
    borders = [0, *itertools.chain(*zip(starts, self._ends, strict=True))]
    if sorted(borders) != borders or borders[-1] > length:
      raise ValueError(f"pieces overlap or stick out of {length} tokens")
    sizes = (len(p.tokens) for p in pieces)
    self._before = [0, *itertools.accumulate(sizes)]

  @property
  def pieces(self) -> tuple[Piece, ...]:
    """What interrupts the filler, in the order of positions."""
    return self._pieces

  @property
  def filler(self) -> int:
    """Tokens that come out of the ring."""
    return self.length - self._before[-1]

  def segment(self, start: int, stop: int) -> Int[np.ndarray, " n"]:
    """Tokens `start .. stop - 1`, int32; costs what it renders.

    Raises:
      ValueError: the range is not inside.
    """
    check_range(start, stop, self.length)
    out = np.empty(stop - start, np.int32)
    at, i = start, bisect.bisect_right(self._ends, start)
    while at < stop:
      piece = self._pieces[i] if i < len(self._pieces) else None
      border = self.length if piece is None else piece.position
      if at < border:
        end = min(border, stop)
        offset = self._start + at - self._before[i]
        out[at - start : end - start] = cut_ring(self._ring, offset, end - at)
        at = end
      elif piece is not None:
        end = min(self._ends[i], stop)
        part = piece.tokens[at - border : end - border]
        out[at - start : end - start] = part
        at, i = end, i + 1
    return out


def cut_ring(
  ring: Int[np.ndarray, " n"], start: int, length: int
) -> Int[np.ndarray, " m"]:
  """`length` tokens of a ring from `start` on."""
  start %= len(ring)
  if start + length <= len(ring):
    return ring[start : start + length]
  # `np.take(..., mode="wrap")` goes round once per period, for every token.
  return ring[np.arange(start, start + length) % len(ring)]


def check_range(start: int, stop: int, length: int) -> None:
  """Raises `ValueError` unless 0 <= start <= stop <= length."""
  if not 0 <= start <= stop <= length:
    raise ValueError(f"{start}..{stop} is not inside 0..{length}")


def render(sample: Sample) -> Int[np.ndarray, " n"]:
  """The whole sample; for short ones."""
  return sample.segment(0, sample.length)
