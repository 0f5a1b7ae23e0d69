"""Short strings, tokenized once, put together by number.

A haystack of 32M tokens in which every line differs cannot be written as text
and tokenized: it would take minutes. Its lines are rows of numbers instead,
each number a short string whose tokens are known.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from hsa_jax.data.sample import check_range

Encode = Callable[[str], Int[np.ndarray, " n"]]


class Lexicon:
  """The tokens of many strings.

  Attributes:
    lengths: int32, tokens of each string.
  """

  def __init__(self, entries: Iterable[Int[np.ndarray, " n"]]):
    """`entries[i]` are the tokens of string i."""
    tokens = [np.asarray(e, np.int32) for e in entries]
    self.lengths = np.array([len(t) for t in tokens], np.int32)
    self._starts = np.cumsum(self.lengths, dtype=np.int64) - self.lengths
    self._flat = np.concatenate([np.empty(0, np.int32), *tokens])

  def render(self, ids: Int[np.ndarray, " m"]) -> Int[np.ndarray, " n"]:
    """Tokens of the strings `ids`, one after the other, int32."""
    sizes = self.lengths[ids]
    ends = np.cumsum(sizes, dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    shift = np.repeat(self._starts[ids] - (ends - sizes), sizes)
    return self._flat[np.arange(total) + shift]


class Column(NamedTuple):
  """One place of every row.

  Attributes:
    base: number of the first string that may stand there.
    codes: which of them, one per row; None: always the first.
  """

  base: int
  codes: Int[np.ndarray, " rows"] | None


class Rows:
  """Lines made of columns, the first of them cut at its start.

  Attributes:
    length: tokens of the whole.
  """

  def __init__(
    self,
    lexicon: Lexicon,
    columns: Sequence[Column],
    sizes: Int[np.ndarray, " rows"],
    length: int,
  ):
    """`sizes`: tokens of each line; together at least `length`."""
    self.length = length
    self._lexicon, self._columns = lexicon, tuple(columns)
    ends = np.cumsum(sizes, dtype=np.int64)
    self._cut = int(ends[-1]) - length
    self._ends = ends - self._cut

  def start_of(self, row: int) -> int:
    """Index of the first token of a line; below 0 where it is cut away."""
    return int(self._ends[row - 1]) if row else -self._cut

  def segment(self, start: int, stop: int) -> Int[np.ndarray, " n"]:
    """Tokens `start .. stop - 1`, int32."""
    check_range(start, stop, self.length)
    if start == stop:
      return np.empty(0, np.int32)
    first = int(np.searchsorted(self._ends, start, "right"))
    last = int(np.searchsorted(self._ends, stop, "left"))
    ids = np.empty((last + 1 - first, len(self._columns)), np.int64)
    for i, column in enumerate(self._columns):
      ids[:, i] = column.base
      if column.codes is not None:
        ids[:, i] += column.codes[first : last + 1]
    at = start - self.start_of(first)
    return self._lexicon.render(ids.ravel())[at : at + stop - start]


def row_sizes(
  lexicon: Lexicon, columns: Sequence[Column], rows: int
) -> Int[np.ndarray, " rows"]:
  """Tokens of each of `rows` lines, int32."""
  sizes = np.zeros(rows, np.int32)
  for column in columns:
    if column.codes is None:
      sizes += lexicon.lengths[column.base]
    else:
      sizes += lexicon.lengths[column.base :][column.codes]
  return sizes
