"""Every home of the memory gives the same answer on the same input.

The sharded home is tested in `sharded_cases.py`, on several devices.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hsa_jax.memory import DeviceMemory, HostMemory, RecordingMemory, streamed
from hsa_jax.memory.disk import DiskMemory
from hsa_jax.memory.layout import layout_of_block
from hsa_jax.memory.streamed import LandmarkPlace
from hsa_jax.ops.read import read_chunks
from hsa_jax.ops.select import select_chunks
from hsa_jax.types import ChunkBlock, Selection
from tests.memory.cases import (
  BATCH,
  HEADS,
  TOKENS,
  cut,
  make_block,
  make_query,
)

CHUNKS = 37
VISIBLE = jnp.array([0, 1, 2, 3, 9, 30, 100])
LAYOUT = layout_of_block(make_block(1))
HOMES = ["device", "host", "host_landmarks_on_device", "disk"]


def make_home(name: str, folder, capacity: int = CHUNKS):
  small = {"search_block": 8, "read_tile": 3}
  if name == "device":
    return DeviceMemory()
  if name == "disk":
    return DiskMemory(folder, capacity, layout=LAYOUT, **small)
  place = LandmarkPlace.STORE if name == "host" else LandmarkPlace.DEVICE
  return HostMemory(capacity, landmark_place=place, **small)


def fill(memory, block: ChunkBlock):
  for start, stop in ((0, 16), (16, 16), (16, 32), (32, CHUNKS)):
    memory = memory.append(cut(block, start, stop))
  return memory


def adversarial(kind: str) -> tuple[ChunkBlock, jax.Array]:
  block, query = make_block(CHUNKS), make_query()
  if kind == "ties":
    landmarks, query = np.round(block.landmarks * 0.5), jnp.round(query)
  elif kind == "duplicated":
    landmarks = np.repeat(block.landmarks[:, :1], CHUNKS, axis=1)
  elif kind == "one_for_all":
    landmarks, query = 0.01 * block.landmarks, jnp.abs(query)
    landmarks[:, 5] = 10.0
  else:
    landmarks = block.landmarks
  return block._replace(landmarks=landmarks), query


def choose(query, block: ChunkBlock, *, num_visible=VISIBLE, top_k=4):
  landmarks = jnp.asarray(block.landmarks)
  return select_chunks(query, landmarks, num_visible=num_visible, top_k=top_k)


def weigh(selection: Selection):
  draw = np.random.default_rng(3).random(selection.score.shape, np.float32)
  return jnp.where(selection.valid, draw, 0.0)


@pytest.mark.parametrize(
  "kind", ["random", "ties", "duplicated", "one_for_all"]
)
@pytest.mark.parametrize("home", HOMES)
def test_same_selection_and_output(home, kind, tmp_path):
  block, query = adversarial(kind)
  memory = fill(make_home(home, tmp_path), block)
  assert memory.num_chunks == CHUNKS
  want = choose(query, block)
  got = memory.search(query, num_visible=VISIBLE, top_k=4)
  np.testing.assert_array_equal(got.index, want.index)
  np.testing.assert_array_equal(got.valid, want.valid)
  np.testing.assert_allclose(got.score, want.score, atol=1e-5)
  query = make_query(2 * HEADS, seed=4)
  for weights, sink in ((weigh(want), 1), (None, 0)):
    keys, values = jnp.asarray(block.keys), jnp.asarray(block.values)
    expected = read_chunks(query, keys, values, want, weights, sink=sink)
    out = memory.read(query, got, weights, sink=sink)
    np.testing.assert_allclose(out, expected, atol=1e-5)
    np.testing.assert_array_equal(out[:, 0], 0)  # the first token sees nothing
  assert np.abs(expected).max() > 0.1


@pytest.mark.parametrize("home", ["device", "host"])
def test_more_slots_than_chunks(home, tmp_path):
  block = make_block(CHUNKS)
  memory = fill(make_home(home, tmp_path), block)
  query = make_query()
  want = choose(query, block, top_k=50)
  got = memory.search(query, num_visible=VISIBLE, top_k=50)
  jax.tree.map(np.testing.assert_array_equal, got[::2], want[::2])


@pytest.mark.parametrize("home", HOMES)
def test_empty_memory_answers_nothing(home, tmp_path):
  memory = make_home(home, tmp_path)
  found = memory.search(make_query(), num_visible=VISIBLE, top_k=4)
  assert found.index.shape == (BATCH, TOKENS, HEADS, 4)
  assert not np.asarray(found.valid).any()
  query = make_query(2 * HEADS)
  np.testing.assert_array_equal(memory.read(query, found, None, sink=0), 0)
  assert memory.num_chunks == 0


def test_device_memory_grows_by_doubling():
  block = make_block(CHUNKS)
  memory, rooms = DeviceMemory(), []
  for start in range(0, 36, 6):
    memory = memory.append(cut(block, start, start + 6))
    rooms.append(memory.room)
  assert rooms == [6, 12, 24, 24, 48, 48]
  assert memory.arrays is not None
  held = ChunkBlock(*(x[:, :36] for x in memory.arrays))
  jax.tree.map(np.testing.assert_array_equal, held, cut(block, 0, 36))
  np.testing.assert_array_equal(memory.arrays.keys[:, 36:], 0)


def test_device_memory_of_known_length_is_written_in_place():
  memory = DeviceMemory(24).append(make_block(6))
  assert memory.arrays is not None
  where = memory.arrays.keys.unsafe_buffer_pointer()
  used_up = memory.arrays.keys
  memory = memory.append(make_block(6, seed=1))
  assert memory.arrays is not None and memory.room == 24
  assert memory.arrays.keys.unsafe_buffer_pointer() == where
  assert used_up.is_deleted()


def test_device_memory_inside_one_program():
  block, query = make_block(12), make_query()
  traces = []

  @jax.jit
  def step(memory, part):
    traces.append(1)
    memory = memory.append(part)
    return memory, memory.search(query, num_visible=VISIBLE, top_k=4)

  memory = DeviceMemory(12).append(cut(block, 0, 3)).reserve(12)
  memory, _ = step(memory, cut(block, 3, 6))
  for start in (6, 9):
    memory, found = step(memory, cut(block, start, start + 3))
  assert memory.num_chunks == 12 and len(traces) <= 2
  visible = jnp.minimum(VISIBLE, 12)
  want = choose(query, block, num_visible=visible)
  np.testing.assert_array_equal(found.index, want.index)


def test_clear_keeps_the_room():
  host = make_home("host", None).append(make_block(CHUNKS, seed=1))
  size = host.nbytes()
  host.clear()
  assert host.num_chunks == 0
  second = make_block(5, seed=2)
  host.append(second)
  query = make_query()
  visible = jnp.minimum(VISIBLE, 5)
  want = choose(query, second, num_visible=visible)
  got = host.search(query, num_visible=VISIBLE, top_k=4)
  np.testing.assert_array_equal(got.valid, want.valid)
  np.testing.assert_array_equal(got.index, want.index)
  assert host.nbytes() == size


def test_bytes_are_counted_by_place(tmp_path):
  block = make_block(CHUNKS)
  total, landmarks = sum(x.nbytes for x in block), block.landmarks.nbytes
  sizes = {
    "device": (total, 0, 0),
    "host": (0, total, 0),
    "host_landmarks_on_device": (landmarks, total - landmarks, 0),
    "disk": (0, 0, total),
  }
  for home, size in sizes.items():
    memory = make_home(home, tmp_path).append(block)
    assert memory.nbytes() == size, home


def test_search_program_does_not_depend_on_the_number_of_chunks():
  query, host = make_query(), make_home("host", None)
  host.append(make_block(8))
  host.search(query, num_visible=VISIBLE, top_k=4)
  before = streamed._meet._cache_size()
  for seed in range(2):
    host.append(make_block(8, seed))
    host.search(query, num_visible=VISIBLE, top_k=4)
  assert streamed._meet._cache_size() == before


def test_a_read_holds_few_chunks_at_once(monkeypatch):
  """At most three queries' chunks are gathered together."""
  widths = []
  gather = HostMemory._gather

  def watch(self, slots):
    found = gather(self, slots)
    widths.append(found.stored.keys.shape[1])
    return found

  monkeypatch.setattr(HostMemory, "_gather", watch)
  host = fill(make_home("host", None), make_block(CHUNKS))
  slots = np.arange(TOKENS * 4).reshape(1, TOKENS, 1, 4)
  index = np.broadcast_to(slots, (BATCH, TOKENS, HEADS, 4)).astype(np.int32)
  ones = np.ones(index.shape, np.float32)
  found = Selection(index, ones, ones > 0)
  host.read(make_query(2 * HEADS), found, None, sink=0)
  assert widths == [16, 16, 8]  # the last tile: one query, two of filling


def test_errors_name_the_numbers():
  host = HostMemory(4).append(make_block(3))
  with pytest.raises(ValueError, match="5 chunks do not fit the capacity 4"):
    host.append(make_block(2))
  one_head = ChunkBlock(*(x[..., :1, :] for x in make_block(1)))
  with pytest.raises(ValueError, match="retrieval_heads = 1 instead of 2"):
    host.append(one_head)
  with pytest.raises(ValueError, match="landmarks of shape"):
    DeviceMemory().append(make_block(3)).append(one_head)
  with pytest.raises(ValueError, match="top_k = 0"):
    host.search(make_query(), num_visible=VISIBLE, top_k=0)
  with pytest.raises(ValueError, match="capacity = -1"):
    HostMemory(-1)


def test_recording_keeps_selections_and_changes_nothing():
  block, query = make_block(CHUNKS), make_query()
  recorder = RecordingMemory(make_home("host", None)).append(block)
  got = recorder.search(query, num_visible=VISIBLE, top_k=4)
  recorder.search(query, num_visible=jnp.minimum(VISIBLE, 3), top_k=4)
  want = choose(query, block)
  np.testing.assert_array_equal(got.index, want.index)
  assert len(recorder.selections) == 2
  np.testing.assert_array_equal(recorder.selections[0].index, want.index)
  assert recorder.selections[1].index.max() <= 2
  assert recorder.num_chunks == CHUNKS
