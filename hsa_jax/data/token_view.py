"""The tokens of a split that lie in several files, as one sequence."""

import bisect
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hsa_jax.data.index import Stretch

# Every map holds a file descriptor, and 1,024 is a common limit of those.
_MAX_MAPS = 256


class TokenView:
  """What this package asks of a one-dimensional array of tokens.

  `len`, `dtype`, slices, indices, index arrays and `np.take`. A slice inside
  one file is a view, over a border a copy; costs do not depend on the length
  of the split. `np.asarray` makes a copy of everything.
  """

  ndim = 1

  def __init__(
    self,
    stretches: Sequence[Stretch],
    open_file: Callable[[str], np.ndarray],
    dtype: np.dtype,
  ):
    """Joins stretches.

    Args:
      stretches: none of them empty.
      open_file: all tokens of a file, memory-mapped; called when needed.
      dtype: of the tokens.
    """
    self.dtype = dtype
    self._stretches = tuple(stretches)
    sizes = [s.length for s in stretches]
    self._ends = np.array(list(itertools.accumulate(sizes)), np.int64)
    self._end_list: list[int] = self._ends.tolist()
    self._open = functools.lru_cache(_MAX_MAPS)(open_file)

  def __len__(self) -> int:
    return self._end_list[-1] if self._end_list else 0

  @property
  def size(self) -> int:
    """Number of tokens."""
    return len(self)

  @property
  def shape(self) -> tuple[int]:
    """`(size,)`."""
    return (len(self),)

  def __getitem__(self, key: Any) -> Any:
    if isinstance(key, slice):
      start, stop, step = key.indices(len(self))
      if step == 1:
        return self._cut(start, stop)
      return self.take(np.arange(start, stop, step))
    key = np.asarray(key)
    return self.take(np.flatnonzero(key) if key.dtype == bool else key)[()]

  def take(
    self,
    indices: Any,
    axis: int | None = None,
    out: None = None,
    mode: str = "raise",
  ) -> np.ndarray:
    """As `np.take`: tokens at `indices`, in the shape of `indices`.

    Raises:
      IndexError: outside, with mode `"raise"`.
    """
    if axis not in (None, 0) or out is not None:
      raise ValueError("take: one dimension, and no `out`")
    index = _inside(np.asarray(indices), len(self), mode).ravel()
    found = np.empty(index.shape, self.dtype)
    number = np.searchsorted(self._ends, index, side="right")
    # Sorted by file, each file is read once however the indices are mixed.
    order = np.argsort(number, kind="stable")
    borders = np.flatnonzero(np.diff(number[order])) + 1
    for group in np.split(order, borders):
      if len(group):
        i = int(number[group[0]])
        found[group] = self._tokens(i)[index[group] - self._begin(i)]
    return found.reshape(np.shape(indices))

  def __array__(
    self, dtype: Any = None, copy: bool | None = None
  ) -> np.ndarray:
    if copy is False:
      raise ValueError("tokens of several files cannot be one array uncopied")
    return np.asarray(self._cut(0, len(self)), dtype)

  def _cut(self, start: int, stop: int) -> np.ndarray:
    if stop <= start:
      return np.empty(0, self.dtype)
    i = bisect.bisect_right(self._end_list, start)
    if stop <= self._end_list[i]:
      begin = self._begin(i)
      return self._tokens(i)[start - begin : stop - begin]
    parts = []
    while start < stop:
      begin, end = self._begin(i), min(stop, self._end_list[i])
      parts.append(self._tokens(i)[start - begin : end - begin])
      start, i = end, i + 1
    return np.concatenate(parts)

  def _begin(self, i: int) -> int:
    return self._end_list[i - 1] if i else 0

  def _tokens(self, i: int) -> np.ndarray:
    """Of a stretch."""
    stretch = self._stretches[i]
    tokens = self._open(stretch.file)
    return tokens[stretch.start : stretch.start + stretch.length]


def _inside(index: np.ndarray, length: int, mode: str) -> np.ndarray:
  """Indices in 0..length-1, by the rules of numpy."""
  if mode == "clip":
    return np.clip(index, 0, length - 1)
  if mode == "wrap":
    return index % length
  outside = (index < -length) | (index >= length)
  if outside.any():
    wrong = int(index[outside].flat[0])
    raise IndexError(f"index {wrong} is out of bounds for size {length}")
  return np.where(index < 0, index + length, index)
