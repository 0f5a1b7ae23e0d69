"""Keys and values stored in fewer bits: the error is what is promised."""

import numpy as np
import pytest

from hsa_jax.memory import HostMemory, KvDtype
from hsa_jax.memory.codec import decode, encode, from_records, to_records
from hsa_jax.memory.layout import layout_of_block
from hsa_jax.types import Selection
from tests.memory.cases import BATCH, HEADS, TOKENS, make_block, make_query

BLOCK = make_block(16)


@pytest.mark.parametrize("kv_dtype", list(KvDtype))
def test_error_of_a_stored_value(kv_dtype):
  # Heads of very different size: each has a scale of its own.
  sizes = np.array([1e-3, 1e3], np.float32)[None, None, None, :, None]
  block = BLOCK._replace(keys=BLOCK.keys * sizes, values=BLOCK.values / sizes)
  layout = layout_of_block(block, kv_dtype)
  landmarks, stored = encode(block, kv_dtype=kv_dtype)
  np.testing.assert_array_equal(landmarks, block.landmarks.swapaxes(0, 1))
  records = to_records(stored, layout).swapaxes(0, 1)
  assert records.nbytes == 16 * layout.record_bytes
  pairs = zip(decode(from_records(records), np.float32), block[1:], strict=True)
  for got, want in pairs:
    largest = np.abs(want).max(axis=(2, 4), keepdims=True)
    error = np.abs(np.asarray(got) - want) / largest
    assert error.max() <= layout.kv_error * 1.001
    if kv_dtype is not KvDtype.COMPUTED:
      assert error.max() > 0.2 * layout.kv_error


def test_zeros_stay_zeros():
  block = BLOCK._replace(keys=0 * BLOCK.keys)
  _, stored = encode(block, kv_dtype=KvDtype.INT8)
  keys, _ = decode(stored, np.float32)
  np.testing.assert_array_equal(keys, 0)


@pytest.mark.parametrize(
  ("kv_dtype", "most"), [(KvDtype.BFLOAT16, 0.01), (KvDtype.INT8, 0.02)]
)
def test_error_of_a_read(kv_dtype, most):
  """Selections do not change; outputs do by a small part of their size."""
  exact, small = HostMemory(16), HostMemory(16, kv_dtype=kv_dtype)
  exact.append(BLOCK)
  small.append(BLOCK)
  index = np.arange(2 * TOKENS * 3 * HEADS).reshape(BATCH, TOKENS, HEADS, 3)
  index = (index % 16).astype(np.int32)
  valid = np.ones(index.shape, bool)
  found = Selection(index, np.zeros(index.shape, np.float32), valid)
  query = make_query(2 * HEADS)
  want = np.asarray(exact.read(query, found, None, sink=0))
  got = np.asarray(small.read(query, found, None, sink=0))
  error = np.abs(got - want).max() / np.abs(want).max()
  assert 1e-5 < error < most
