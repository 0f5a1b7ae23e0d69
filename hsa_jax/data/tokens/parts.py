"""Bodies that are not one ring of filler."""

import bisect
import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from hsa_jax.data.sample import check_range
from hsa_jax.data.tokens.layout import Body

_ROUNDS = 4
_MIX = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9], np.uint64)


class Fixed:
  """Tokens that are there as an array."""

  def __init__(self, tokens: Int[np.ndarray, " n"]):
    self.length = len(tokens)
    self._tokens = tokens

  def segment(self, start: int, stop: int) -> Int[np.ndarray, " n"]:
    """Tokens `start .. stop - 1`."""
    return self._tokens[start:stop]


class Joined:
  """Bodies one after another."""

  def __init__(self, parts: Sequence[Body]):
    self._parts = tuple(parts)
    lengths = (part.length for part in parts)
    self._starts = [0, *itertools.accumulate(lengths)]
    self.length = self._starts[-1]

  def start(self, index: int) -> int:
    """Index of the first token of a part."""
    return self._starts[index]

  def segment(self, start: int, stop: int) -> Int[np.ndarray, " n"]:
    """Tokens `start .. stop - 1`, int32; costs what it renders.

    Raises:
      ValueError: the range is not inside.
    """
    check_range(start, stop, self.length)
    out = np.empty(stop - start, np.int32)
    at, i = start, bisect.bisect_right(self._starts, start) - 1
    while at < stop:
      base, end = self._starts[i], min(self._starts[i + 1], stop)
      part = self._parts[i].segment(at - base, end - base)
      out[at - start : end - start] = part
      at, i = end, i + 1
    return out


class Permutation:
  """A pseudo-random order of `size` things, known at any index alone.

  A Feistel network of four rounds over the next even power of two, walked
  until it lands inside: exactly a permutation, four steps at most on average.
  """

  def __init__(self, size: int, keys: Sequence[int]):
    """Takes one whole number per round as the key.

    Args:
      size: things to order, at least 1.
      keys: four numbers in 0 .. 2^64 - 1.
    """
    if size < 1 or len(keys) != _ROUNDS:
      raise ValueError(
        f"size = {size}, {len(keys)} keys: needs 1 and {_ROUNDS}"
      )
    self._size = size
    bits = max((size - 1).bit_length(), 2)
    self._half = np.uint64(-(-bits // 2))
    self._mask = np.uint64((1 << int(self._half)) - 1)
    self._keys = np.array(keys, np.uint64)

  def __call__(self, index: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Places of the things at `index`, int64."""
    out = self._step(np.asarray(index).astype(np.uint64))
    outside = np.flatnonzero(out >= self._size)
    while len(outside):
      out[outside] = self._step(out[outside])
      outside = outside[out[outside] >= self._size]
    return out.astype(np.int64)

  def _step(self, x: np.ndarray) -> np.ndarray:
    left, right = x >> self._half, x & self._mask
    for key in self._keys:
      mixed = (right + key) * _MIX[0]
      mixed = (mixed ^ (mixed >> np.uint64(29))) * _MIX[1]
      mixed ^= mixed >> np.uint64(32)
      left, right = right, left ^ (mixed & self._mask)
    return (left << self._half) | right
