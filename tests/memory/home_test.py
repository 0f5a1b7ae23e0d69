"""Every home of the memory gives the same answer on the same input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hsa_jax.memory import DeviceMemory, HostMemory, RecordingMemory
from hsa_jax.types import ChunkBlock

BATCH, TOKENS, SIZE, HEADS, DIM = 2, 7, 4, 2, 8


def make_block(chunks: int, seed: int = 0, *, grid: bool = False) -> ChunkBlock:
  """Random chunks; `grid` rounds landmarks so that many scores are equal."""
  keys = jax.random.split(jax.random.key(seed), 3)
  landmarks = jax.random.normal(keys[0], (BATCH, chunks, HEADS, DIM))
  if grid:
    landmarks = jnp.round(landmarks * 0.5)
  shape = (BATCH, chunks, SIZE, HEADS, DIM)
  return ChunkBlock(
    landmarks,
    jax.random.normal(keys[1], shape),
    jax.random.normal(keys[2], shape),
  )


def split(block: ChunkBlock, sizes: list[int]) -> list[ChunkBlock]:
  stops = np.cumsum(sizes)
  return [
    ChunkBlock(*(x[:, stop - size : stop] for x in block))
    for size, stop in zip(sizes, stops, strict=True)
  ]


def make_query(seed: int = 9, heads: int = HEADS, *, grid: bool = False):
  query = jax.random.normal(jax.random.key(seed), (BATCH, TOKENS, heads, DIM))
  return jnp.round(query) if grid else query


def visible(chunks: int):
  return jnp.minimum(jnp.array([0, 1, 2, 3, 9, 30, 100]), chunks)


@pytest.mark.parametrize("grid", [False, True], ids=["distinct", "ties"])
@pytest.mark.parametrize("search_block", [4, 64])
@pytest.mark.parametrize("top_k", [3, 50])
def test_search_equals_device(grid, search_block, top_k):
  block = make_block(37, grid=grid)
  device = DeviceMemory().append(block)
  host = HostMemory(40, search_block=search_block)
  for part in split(block, [5, 16, 0, 16]):
    host.append(part)
  query = make_query(grid=grid)
  want = device.search(query, num_visible=visible(37), top_k=top_k)
  got = host.search(query, num_visible=visible(37), top_k=top_k)
  np.testing.assert_array_equal(got.index, want.index)
  np.testing.assert_array_equal(got.valid, want.valid)
  np.testing.assert_allclose(got.score, want.score, atol=1e-6)


def test_ties_go_to_the_later_chunk():
  block = make_block(9)
  block = block._replace(landmarks=jnp.ones_like(block.landmarks))
  host = HostMemory(9, search_block=2).append(block)
  found = host.search(
    jnp.ones((BATCH, 1, HEADS, DIM)), num_visible=jnp.array([7]), top_k=3
  )
  np.testing.assert_array_equal(found.index[0, 0, 0], [6, 5, 4])


@pytest.mark.parametrize("sink", [0, 1])
@pytest.mark.parametrize("weighted", [True, False], ids=["weights", "mass"])
def test_read_equals_device(sink, weighted):
  block = make_block(37)
  device, host = DeviceMemory().append(block), HostMemory(37, search_block=8)
  host.append(block)
  selection = device.search(make_query(), num_visible=visible(37), top_k=3)
  weights = None
  if weighted:
    draw = jax.random.uniform(jax.random.key(3), selection.score.shape)
    weights = jnp.where(selection.valid, draw, 0.0)
  query = make_query(seed=4, heads=2 * HEADS)
  want = device.read(query, selection, weights, sink=sink)
  got = host.read(query, selection, weights, sink=sink)
  np.testing.assert_allclose(got, want, atol=1e-6)
  assert np.abs(want).max() > 0.1
  np.testing.assert_array_equal(got[:, 0], 0)  # the first token sees nothing


@pytest.mark.parametrize("memory", [DeviceMemory(), HostMemory(3)])
def test_empty_memory_answers_nothing(memory):
  found = memory.search(make_query(), num_visible=visible(0), top_k=2)
  assert found.index.shape == (BATCH, TOKENS, HEADS, 2)
  assert not np.asarray(found.valid).any()
  query = make_query(heads=2 * HEADS)
  np.testing.assert_array_equal(memory.read(query, found, None, sink=0), 0)
  assert memory.num_chunks == 0


def test_device_append_equals_one_block():
  block = make_block(12)
  memory = DeviceMemory()
  for part in split(block, [5, 7]):
    memory = memory.append(part)
  assert memory.num_chunks == 12
  jax.tree.map(np.testing.assert_array_equal, memory.arrays, block)


def test_clear_keeps_the_room():
  host = HostMemory(8, search_block=4).append(make_block(8, seed=1))
  size = host.nbytes()
  host.clear()
  assert host.num_chunks == 0
  second = make_block(5, seed=2)
  host.append(second)
  query = make_query()
  want = (
    DeviceMemory().append(second).search(query, num_visible=visible(5), top_k=4)
  )
  got = host.search(query, num_visible=visible(100), top_k=4)
  np.testing.assert_array_equal(got.valid[:, 4:], want.valid[:, 4:])
  np.testing.assert_array_equal(got.index[:, 4:], want.index[:, 4:])
  assert host.nbytes() == size


def test_bytes_are_counted_by_place():
  block = make_block(16)
  total = sum(x.nbytes for x in block)
  assert DeviceMemory().append(block).nbytes() == (total, 0, 0)
  host = HostMemory(16, search_block=4).append(block)
  assert host.nbytes() == (0, total, 0)


def test_host_search_program_does_not_depend_on_the_number_of_chunks():
  from hsa_jax.memory import streamed as room

  query = make_query()
  host = HostMemory(64, search_block=8)
  host.append(make_block(8))
  host.search(query, num_visible=visible(8), top_k=2)
  before = room._meet._cache_size()
  for seed in range(5):
    host.append(make_block(11, seed))
    host.search(query, num_visible=visible(63), top_k=2)
  assert room._meet._cache_size() == before


def test_errors_name_the_numbers():
  host = HostMemory(4).append(make_block(3))
  with pytest.raises(ValueError, match="5 chunks do not fit the capacity 4"):
    host.append(make_block(2))
  one_head = ChunkBlock(*(x[..., :1, :] for x in make_block(1)))
  with pytest.raises(ValueError, match="retrieval_heads = 1 instead of 2"):
    host.append(one_head)
  with pytest.raises(ValueError, match="top_k = 0"):
    host.search(make_query(), num_visible=visible(3), top_k=0)
  with pytest.raises(ValueError, match="capacity = -1"):
    HostMemory(-1)


def test_recording_keeps_selections_and_changes_nothing():
  block = make_block(20)
  recorder = RecordingMemory(HostMemory(20)).append(block)
  query = make_query()
  got = recorder.search(query, num_visible=visible(20), top_k=2)
  recorder.search(query, num_visible=visible(3), top_k=2)
  want = (
    DeviceMemory().append(block).search(query, num_visible=visible(20), top_k=2)
  )
  np.testing.assert_array_equal(got.index, want.index)
  assert len(recorder.selections) == 2
  np.testing.assert_array_equal(recorder.selections[0].index, want.index)
  assert recorder.selections[1].index.max() <= 2
  assert recorder.num_chunks == 20
