import numpy as np
import pytest

from hsa_jax.data.index import Stretch
from hsa_jax.data.sample import cut_ring
from hsa_jax.data.token_view import TokenView

LENGTHS = (5, 1, 7, 3)


def _files():
  rng = np.random.default_rng(0)
  return {
    f"{i}.bin": rng.integers(0, 60_000, n + 4).astype(np.uint16)
    for i, n in enumerate(LENGTHS)
  }


FILES = _files()
# Each stretch begins behind two tokens of another split.
WHOLE = np.concatenate([t[2:-2] for t in FILES.values()])


def _view(opened=None):
  def open_file(name):
    if opened is not None:
      opened.append(name)
    return FILES[name]

  stretches = [
    Stretch(name, 2, n, 0, 1) for name, n in zip(FILES, LENGTHS, strict=True)
  ]
  return TokenView(stretches, open_file, np.dtype(np.uint16))


def test_every_slice_is_that_of_one_array():
  view = _view()
  assert len(view) == view.size == 16
  assert view.shape == (16,) and view.dtype == np.uint16
  for start in range(-18, 19):
    for stop in (*range(-18, 19), None):
      np.testing.assert_array_equal(view[start:stop], WHOLE[start:stop])
  np.testing.assert_array_equal(view[13:2:-3], WHOLE[13:2:-3])


def test_a_slice_inside_a_file_is_a_view():
  view = _view()
  assert np.shares_memory(view[6:12], FILES["2.bin"])
  assert not np.shares_memory(view[4:7], FILES["0.bin"])


@pytest.mark.parametrize("mode", ["clip", "wrap"])
def test_take_is_that_of_numpy(mode):
  rng = np.random.default_rng(1)
  index = rng.integers(-40, 40, (3, 50))
  found = np.take(_view(), index, mode=mode)
  np.testing.assert_array_equal(found, np.take(WHOLE, index, mode=mode))
  assert found.dtype == np.uint16


def test_indices_masks_and_single_tokens():
  view, index = _view(), np.array([[15, 0], [-16, -1]])
  np.testing.assert_array_equal(view[index], WHOLE[index])
  np.testing.assert_array_equal(view[WHOLE % 2 == 0], WHOLE[WHOLE % 2 == 0])
  assert [int(view[i]) for i in range(-16, 16)] == [
    int(WHOLE[i]) for i in range(-16, 16)
  ]
  for wrong in (16, -17):
    with pytest.raises(IndexError, match=f"index {wrong} is out of bounds"):
      view[wrong]


def test_a_copy_of_everything():
  np.testing.assert_array_equal(np.asarray(_view()), WHOLE)
  assert np.asarray(_view(), np.int64).dtype == np.int64


@pytest.mark.parametrize("start", [0, 3, 14, 35])
def test_it_is_a_ring_for_samples(start):
  found = cut_ring(_view(), start, 40)
  np.testing.assert_array_equal(found, cut_ring(WHOLE, start, 40))


def test_files_are_opened_once_and_only_when_needed():
  opened = []
  view = _view(opened)
  view[6:12], view[7:9], view[np.array([15, 7])]
  assert sorted(opened) == ["2.bin", "3.bin"]
