"""The haystack of one line repeated, with other lines put between."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from hsa_jax.data.ruler.lexicon import Encode
from hsa_jax.data.ruler.prompt import TooShort
from hsa_jax.data.ruler.templates import NOISE
from hsa_jax.data.sample import Piece, Splice

Tokens = Int[np.ndarray, " n"]


class Placed(NamedTuple):
  """A haystack with what is hidden in it.

  Attributes:
    body: the whole prompt.
    positions: index of the first token of each hidden piece.
    unique_fraction: share of the filler that repeats nothing.
  """

  body: Splice
  positions: tuple[int, ...]
  unique_fraction: float


def noise_ring(encode: Encode) -> Tokens:
  """One line with its line feed."""
  return encode(NOISE + "\n")


def place_lines(
  ring: Tokens,
  head: Tokens,
  lines: Sequence[Tokens],
  depths: Sequence[float],
  tail: Tokens,
  length: int,
  new_tokens: int,
) -> Placed:
  """Puts lines between lines of noise, no two of them side by side.

  The first line of noise is cut at its start so that the length is exact.

  Args:
    ring: one line of noise.
    head: what stands before the haystack.
    lines: what is hidden, each with its line feed.
    depths: relative depth of each, in [0, 1), ascending.
    tail: what stands after it.
    length: tokens of the whole, the room for the answer included.
    new_tokens: room for the answer, behind the tail.

  Raises:
    TooShort: there are fewer lines of noise than lines to hide.
  """
  used = len(head) + sum(map(len, lines)) + len(tail)
  filler, period = length - new_tokens - used, len(ring)
  count, part = divmod(filler, period)
  if count < len(lines):
    raise TooShort(new_tokens + used + len(lines) * period)
  room = count - len(lines) + 1
  gaps = [int(depth * room) + i for i, depth in enumerate(depths)]
  before = itertools.accumulate(map(len, lines), initial=0)
  base = len(head) + part
  positions = [
    base + g * period + b for g, b in zip(gaps, before, strict=False)
  ]
  pieces = [
    Piece(0, head),
    *map(Piece, positions, lines),
    Piece(used + filler - len(tail), tail),
  ]
  body = Splice(ring, -part % period, pieces, used + filler)
  return Placed(body, tuple(positions), min(1.0, period / filler))
