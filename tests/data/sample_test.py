"""Samples rendered by the stretch against the whole, put together slowly."""

import itertools

import numpy as np
import pytest

from hsa_jax.data.sample import Piece, Splice, cut_ring, render

RING = np.arange(1000, 1017, dtype=np.uint16)


def slow(ring, start, pieces, length):
  """Token by token."""
  inserted = {
    piece.position + i: token
    for piece in pieces
    for i, token in enumerate(piece.tokens.tolist())
  }
  filler = itertools.islice(itertools.cycle(ring.tolist()), start, None)
  return np.array(
    [inserted[i] if i in inserted else next(filler) for i in range(length)],
    np.int32,
  )


def pieces_at(*places):
  """A piece of `size` tokens at each position."""
  return [
    Piece(at, np.arange(100 * i, 100 * i + size, dtype=np.int32))
    for i, (at, size) in enumerate(places)
  ]


@pytest.mark.parametrize(
  "places",
  [
    (),
    ((0, 4),),
    ((46, 4),),
    ((3, 2), (5, 1), (6, 5)),  # touching
    ((0, 50),),  # no filler at all
    ((10, 0), (20, 3)),  # an empty piece
  ],
)
def test_any_stretch_equals_the_whole(places):
  pieces = pieces_at(*places)
  splice = Splice(RING, 12, pieces, 50)
  whole = slow(RING, 12, pieces, 50)
  np.testing.assert_array_equal(render(splice), whole)
  assert splice.filler == 50 - sum(size for _, size in places)
  for start, stop in itertools.combinations_with_replacement(range(51), 2):
    part = splice.segment(start, stop)
    assert part.dtype == np.int32
    np.testing.assert_array_equal(part, whole[start:stop])


def test_a_ring_goes_on_at_its_beginning():
  got = cut_ring(RING, 16, 37)
  np.testing.assert_array_equal(got, np.tile(RING, 4)[16 : 16 + 37])
  np.testing.assert_array_equal(cut_ring(RING, 17 * 10**9 + 2, 3), RING[2:5])


@pytest.mark.parametrize("places", [((3, 4), (6, 1)), ((48, 3),), ((-1, 1),)])
def test_overlapping_pieces_are_refused(places):
  with pytest.raises(ValueError, match="overlap or stick out of 50"):
    Splice(RING, 0, pieces_at(*places), 50)


@pytest.mark.parametrize("start, stop", [(-1, 3), (4, 3), (0, 51)])
def test_a_stretch_outside_is_refused(start, stop):
  with pytest.raises(ValueError, match=r"is not inside 0\.\.50"):
    Splice(RING, 0, (), 50).segment(start, stop)
