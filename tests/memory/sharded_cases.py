"""The sharded home on virtual devices; run by `sharded_test.py`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

from hsa_jax.memory.layout import layout_of_block
from hsa_jax.memory.sharded import (
  KvPlace,
  Placement,
  ShardedMemory,
  make_sharded,
)
from hsa_jax.memory.sharded_read import pass_size
from hsa_jax.ops.read import read_chunks
from hsa_jax.ops.select import select_chunks
from hsa_jax.types import ChunkBlock, Selection

BATCH, CHUNKS, TOKENS, SIZE, HEADS, DIM, TOP_K = 1, 37, 24, 4, 2, 8, 4
SHARDS = (1, 2, 3, 8) + tuple(
  pytest.param(n, marks=pytest.mark.slow) for n in (4, 5, 6, 7)
)


def make_block(kind: str = "random") -> ChunkBlock:
  keys = jax.random.split(jax.random.key(0), 3)
  landmarks = jax.random.normal(keys[0], (BATCH, CHUNKS, HEADS, DIM))
  if kind == "ties":
    landmarks = jnp.round(landmarks * 0.5)
  if kind == "duplicated":
    landmarks = jnp.repeat(landmarks[:, :1], CHUNKS, axis=1)
  if kind == "one_for_all":  # one chunk that every query likes best
    landmarks = (landmarks * 0.01).at[:, 5].set(10.0)
  shape = (BATCH, CHUNKS, SIZE, HEADS, DIM)
  return ChunkBlock(
    landmarks,
    jax.random.normal(keys[1], shape),
    jax.random.normal(keys[2], shape),
  )


def make_query(kind: str):
  shape = (BATCH, TOKENS, HEADS, DIM)
  query = jax.random.normal(jax.random.key(9), shape)
  if kind == "ties":
    query = jnp.round(query)
  return jnp.abs(query) if kind == "one_for_all" else query


def placement(shards: int, place=KvPlace.DEVICE) -> Placement:
  devices = np.array(jax.devices()[:shards])
  mesh = Mesh(devices, ("memory",), axis_types=(AxisType.Auto,))
  return Placement(mesh, "memory", place)


def fill(block: ChunkBlock, where: Placement) -> ShardedMemory:
  memory = make_sharded(layout_of_block(block), CHUNKS, where)
  for start, stop in ((0, 16), (16, 16), (16, 32), (32, CHUNKS)):
    memory = memory.append(ChunkBlock(*(x[:, start:stop] for x in block)))
  return memory


def weigh(selection: Selection):
  draw = jax.random.uniform(jax.random.key(3), selection.score.shape)
  return jnp.where(selection.valid, draw, 0.0)


def check_read(memory, block: ChunkBlock, selection: Selection) -> None:
  shape = (BATCH, TOKENS, 2 * HEADS, DIM)
  query = jax.random.normal(jax.random.key(4), shape)
  for weights, sink in ((weigh(selection), 1), (None, 0)):
    got = memory.read(query, selection, weights, sink=sink)
    want = read_chunks(
      query, block.keys, block.values, selection, weights, sink=sink
    )
    np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize(
  "kind", ["random", "ties", "duplicated", "one_for_all"]
)
@pytest.mark.parametrize("shards", SHARDS)
def test_same_selection_and_output(shards, kind):
  block, query = make_block(kind), make_query(kind)
  memory = fill(block, placement(shards))
  assert memory.num_chunks == CHUNKS
  visible = jnp.minimum(jnp.arange(TOKENS) * 2, CHUNKS)  # first: none, then < K
  want = select_chunks(query, block.landmarks, num_visible=visible, top_k=TOP_K)
  got = memory.search(query, num_visible=visible, top_k=TOP_K)
  np.testing.assert_array_equal(got.index, want.index)
  np.testing.assert_array_equal(got.valid, want.valid)
  np.testing.assert_allclose(got.score, want.score, atol=1e-5)
  check_read(memory, block, want)


@pytest.mark.parametrize("owner", ["all_on_one", "none_on_one"])
def test_uneven_selections_are_read_whole(owner):
  """Every selected chunk on shard 3 of 8, or none of them there."""
  block, shards = make_block(), 8
  memory = fill(block, placement(shards))
  ids = np.array([3, 11, 19, 27] if owner == "all_on_one" else [0, 1, 2, 4])
  index = jnp.asarray(np.broadcast_to(ids[::-1], (BATCH, TOKENS, HEADS, 4)))
  valid = jnp.ones(index.shape, bool).at[:, :2].set(False)
  check_read(memory, block, Selection(index, jnp.zeros(index.shape), valid))


def test_pinned_host_keys_and_values():
  block = make_block()
  memory = fill(block, placement(4, KvPlace.PINNED_HOST))
  assert memory.arrays.keys.sharding.memory_kind == "pinned_host"
  assert memory.arrays.landmarks.sharding.memory_kind == "device"
  size = memory.nbytes()
  assert size.device == memory.arrays.landmarks.nbytes
  assert size.host == 2 * memory.arrays.keys.nbytes
  query, visible = make_query("random"), jnp.full(TOKENS, CHUNKS)
  found = memory.search(query, num_visible=visible, top_k=TOP_K)
  check_read(memory, block, found)


def test_work_per_shard_falls_with_the_shards():
  """The gathered keys of the compiled read have `pass_size` rows."""
  pairs = BATCH * TOKENS * HEADS * TOP_K * 16
  sizes = [pass_size(pairs, shards) for shards in (1, 2, 4, 8)]
  assert sizes == [sizes[0] // n for n in (1, 2, 4, 8)]
  block = make_block()
  for shards in (1, 8):
    memory = fill(block, placement(shards))
    shape = (BATCH, 16 * TOKENS, HEADS, TOP_K)
    index = jnp.zeros(shape, jnp.int32)
    found = Selection(index, jnp.zeros(shape), index == 0)
    query = jnp.zeros((BATCH, 16 * TOKENS, HEADS, DIM))
    read = jax.jit(lambda m, q, s: m.read(q, s, weigh(s), sink=0))
    text = read.lower(memory, query, found).as_text()
    assert f"tensor<{pass_size(pairs, shards)}x{SIZE}x{DIM}xf32>" in text
    assert f"tensor<{pairs}x{SIZE}x{DIM}xf32>" not in text


def test_append_and_search_inside_one_program():
  block = make_block()
  memory = make_sharded(layout_of_block(block), CHUNKS, placement(4))

  @jax.jit
  def step(memory, part, query):
    memory = memory.append(part)
    visible = jnp.full(TOKENS, CHUNKS)
    return memory, memory.search(query, num_visible=visible, top_k=TOP_K)

  query = make_query("random")
  for start in range(0, 36, 12):
    part = ChunkBlock(*(x[:, start : start + 12] for x in block))
    memory, found = step(memory, part, query)
  want = select_chunks(
    query,
    block.landmarks,
    num_visible=jnp.full(TOKENS, 36),
    top_k=TOP_K,
  )
  np.testing.assert_array_equal(found.index, want.index)
  assert step._cache_size() <= 2


def test_too_many_chunks():
  memory = make_sharded(layout_of_block(make_block()), 4, placement(2))
  with pytest.raises(ValueError, match="37 chunks do not fit the capacity 4"):
    memory.append(make_block())
