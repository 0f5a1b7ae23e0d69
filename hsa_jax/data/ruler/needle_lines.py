"""Haystacks in which every line is a needle, of any length in under a second.

Keys and values of all lines are drawn as codes and kept as codes; tokens are
put together for the stretch that is read (`lexicon.Rows`). The line that is
asked for is made in the same way, so tokenization cannot give it away. A line
that drew the key that is asked gets another value of its last code: with
6,171,620 word keys a second line with that key would be in 22% of the samples
of 32M tokens, and the answer would be ambiguous.
"""

import itertools

import numpy as np
from jaxtyping import Int

from hsa_jax.data.ruler.kinds import Codes, Kind
from hsa_jax.data.ruler.lexicon import Column, Encode, Lexicon, Rows, row_sizes
from hsa_jax.data.ruler.templates import NEEDLE

_MARK = "\0"
# Lines are drawn in a little more than the expected number.
_MARGIN, _SPARE = 1.01, 100


class NeedleLines:
  """Lines `One of the special magic KIND for KEY is: VALUE.`.

  Attributes:
    most: tokens that always hold two lines.
  """

  def __init__(self, name: str, key: Kind, value: Kind, encode: Encode):
    """Tokenizes the parts of a line once.

    Args:
      name: what values are called, `numbers` or `uuids`.
      key: draws and writes keys.
      value: draws and writes values.
      encode: the tokenizer.
    """
    self._key, self._value = key, value
    text = NEEDLE.format(kind=name, key=_MARK, value=_MARK) + "\n"
    # Spaces go with the keys and values that follow them.
    parts = [[part] for part in text.replace(f" {_MARK}", _MARK).split(_MARK)]
    keys, values = key.tables(), value.tables()
    tables = [parts[0], *keys, parts[1], *values, parts[2]]
    sizes = itertools.accumulate(map(len, tables), initial=0)
    self._bases = list(sizes)[: len(tables)]
    self._key_places = slice(1, 1 + len(keys))
    self._value_places = slice(2 + len(keys), 2 + len(keys) + len(values))
    self._lexicon = Lexicon(
      encode(entry) for table in tables for entry in table
    )
    ranges = [
      self._lexicon.lengths[base : base + len(table)]
      for base, table in zip(self._bases, tables, strict=True)
    ]
    self._mean = sum(float(lengths.mean()) for lengths in ranges)
    self.most = 2 * sum(int(lengths.max()) for lengths in ranges)

  def key_tokens(self, key: Codes) -> Int[np.ndarray, " n"]:
    """A key, with the space before it, as lines write it."""
    columns = self._columns(key, None)[self._key_places]
    ids = [c.base + int(c.codes[0]) for c in columns if c.codes is not None]
    return self._lexicon.render(np.array(ids))

  def make(
    self,
    rng: np.random.Generator,
    length: int,
    key: Codes,
    value: Codes,
    depth: float,
  ) -> tuple[Rows, int]:
    """A haystack, and where the value that is asked begins in it.

    Args:
      rng: draws the other lines.
      length: tokens, at least `most`; the first line is cut at its start.
      key: codes of the key that is asked, one row.
      value: codes of its value, one row.
      depth: in [0, 1): before which of the other lines it goes.
    """
    own = self._sizes(key, value)
    keys, values, sizes = self._draw(rng, length - int(own[0]), key)
    row = 1 + int(depth * (len(sizes) - 1))
    keys, values = _insert(keys, row, key), _insert(values, row, value)
    columns = self._columns(keys, values)
    rows = Rows(self._lexicon, columns, _insert(sizes, row, own), length)
    before = [_only(c, row) for c in columns[: self._value_places.start]]
    offset = row_sizes(self._lexicon, before, 1)
    return rows, rows.start_of(row) + int(offset[0])

  def _draw(
    self, rng: np.random.Generator, length: int, key: Codes
  ) -> tuple[Codes, Codes, Int[np.ndarray, " rows"]]:
    """Keys, values and sizes of the fewest lines of at least `length`."""
    drawn = int(length / self._mean * _MARGIN) + _SPARE
    while True:
      keys = _other_than(key, self._key.draw(rng, drawn))
      values = self._value.draw(rng, drawn)
      sizes = self._sizes(keys, values)
      # The last lines are kept, so that only the first of them is cut.
      totals = np.cumsum(sizes[::-1], dtype=np.int64)
      if totals[-1] >= length:
        count = int(np.searchsorted(totals, length, "left")) + 1
        kept = slice(drawn - count, drawn)
        return keys[kept], values[kept], sizes[kept]
      drawn *= 2

  def _sizes(self, keys: Codes, values: Codes) -> Int[np.ndarray, " rows"]:
    return row_sizes(self._lexicon, self._columns(keys, values), len(keys))

  def _columns(self, keys: Codes, values: Codes | None) -> list[Column]:
    codes: list[Int[np.ndarray, " rows"] | None] = [None] * len(self._bases)
    codes[self._key_places] = self._key.places(keys)
    if values is not None:
      codes[self._value_places] = self._value.places(values)
    return list(map(Column, self._bases, codes))


def _other_than(key: Codes, keys: Codes) -> Codes:
  """`keys`, of which none is `key`: the last code of such a row is moved."""
  same = np.flatnonzero(keys[:, 0] == key[0, 0])
  same = same[(keys[same] == key).all(axis=1)]
  # The neighbour of a code is a code: the first has one above, others below.
  keys[same, -1] += np.where(keys[same, -1] == 0, 1, -1).astype(keys.dtype)
  return keys


def _insert(rows: np.ndarray, at: int, row: np.ndarray) -> np.ndarray:
  return np.concatenate([rows[:at], row, rows[at:]])


def _only(column: Column, row: int) -> Column:
  if column.codes is None:
    return column
  return Column(column.base, column.codes[row : row + 1])
