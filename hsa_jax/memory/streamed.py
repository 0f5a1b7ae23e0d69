"""Chunk memory outside the device, for contexts of any length.

Chunks lie in a store of known room (RAM or a file). A search streams the
landmarks through one compiled program of fixed shape, or keeps them on the
device. A read goes tile by tile over the queries: the distinct chunks of a tile
are gathered in a background thread while the device works on the tile before,
so the device never holds the chunks of more than two tiles.
"""

import abc
import enum
import functools
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from hsa_jax.memory.codec import (
  Stored,
  decode,
  encode,
  from_records,
  to_records,
)
from hsa_jax.memory.device import search_device, write_chunks
from hsa_jax.memory.layout import (
  KvDtype,
  Layout,
  check_layout,
  layout_of_block,
)
from hsa_jax.memory.protocol import MemoryBytes, check_room
from hsa_jax.memory.search import (
  SEARCH_BLOCK,
  Candidates,
  meet_block,
  no_candidates,
  to_selection,
)
from hsa_jax.ops.read import read_chunks
from hsa_jax.types import ChunkBlock, Landmarks, Queries, Selection

READ_TILE = 256  # queries whose chunks are on the device together


class LandmarkPlace(enum.StrEnum):
  """Where a search finds the landmarks."""

  STORE = "store"  # beside keys and values: constant device memory
  DEVICE = "device"  # on the device: no upload per search


class Store(Protocol):
  """Room for a known number of chunks, numbered from 0."""

  def write(
    self, start: int, landmarks: np.ndarray, records: np.ndarray
  ) -> None:
    """Puts landmarks `[C B G R]` and records `[C B]` from chunk `start` on."""
    ...

  def landmarks(self, start: int, stop: int) -> np.ndarray:
    """Landmarks `[C B G R]` of consecutive chunks."""
    ...

  def records(self, ids: Int[np.ndarray, "B C"]) -> np.ndarray:
    """Records `[B C]` of each row's own chunks."""
    ...

  def nbytes(self) -> MemoryBytes:
    """Bytes of the room."""
    ...


class StreamedMemory(abc.ABC):
  """Chunks of one batch in a store; the homes differ in the store alone.

  Attributes:
    capacity: chunks there is room for.
    num_chunks: chunks held.
  """

  def __init__(
    self,
    capacity: int,
    *,
    layout: Layout | None = None,
    kv_dtype: KvDtype = KvDtype.COMPUTED,
    landmark_place: LandmarkPlace = LandmarkPlace.STORE,
    search_block: int = SEARCH_BLOCK,
    read_tile: int = READ_TILE,
  ):
    """Makes an empty memory.

    Args:
      capacity: the most chunks that will ever be held, at least 0.
      layout: sizes of a chunk; None takes them, and the room, at the first
        `append`.
      kv_dtype: how keys and values are stored; a layout has its own.
      landmark_place: where a search finds the landmarks.
      search_block: landmarks per call of the search program.
      read_tile: queries whose chunks are gathered together.

    Raises:
      ValueError: for a negative capacity, a block or a tile below 1.
      MemoryHomeError: if there is no such room.
    """
    if capacity < 0 or search_block < 1 or read_tile < 1:
      raise ValueError(
        f"capacity = {capacity}, search_block = {search_block}, read_tile ="
        f" {read_tile}: capacity must not be negative, the others at least 1"
      )
    self.capacity = capacity
    self.num_chunks = 0
    self._kv_dtype = kv_dtype if layout is None else layout.kv_dtype
    self._landmark_place = landmark_place
    self._search_block = max(min(search_block, capacity), 1)
    self._read_tile = read_tile
    self._layout: Layout | None = None
    self._store: Store | None = None
    self._device_landmarks: Array | None = None
    if layout is not None:
      self._make_room(layout)

  @abc.abstractmethod
  def _open_store(self, layout: Layout) -> Store:
    """Makes the room."""

  def clear(self) -> None:
    """Forgets the chunks and keeps the room, for the next sequences."""
    self.num_chunks = 0

  def append(self, block: ChunkBlock) -> Self:
    """Copies `block` behind the chunks held so far.

    Raises:
      ValueError: beyond the capacity, or if sizes or types differ.
      MemoryHomeError: if the store cannot be made or written.
    """
    start, stop = self.num_chunks, self.num_chunks + block.landmarks.shape[1]
    check_room(stop, self.capacity)
    if self._layout is None:
      self._make_room(layout_of_block(block, self._kv_dtype))
    assert self._layout is not None and self._store is not None
    check_layout(self._layout, block)
    landmarks, stored = encode(ChunkBlock(*block), kv_dtype=self._kv_dtype)
    records = to_records(stored, self._layout)
    self._store.write(start, np.asarray(landmarks), records)
    self._show_device(landmarks, start)
    self.num_chunks = stop
    return self

  def search(
    self,
    query: Float[Array, "B T G R"],
    *,
    num_visible: Int[Array, " T"],
    top_k: int,
  ) -> Selection:
    """Same answer as `ops.select.select_chunks` over all chunks held.

    Args:
      query: retrieval queries.
      num_visible: chunks `0 .. n - 1` may be chosen, per token.
      top_k: K, the number of slots.

    Returns:
      `Selection`, nearest chunk first.

    Raises:
      ValueError: if `top_k < 1`.

    Cost: see `search.search_landmarks`.
    """
    best = no_candidates(query.shape[:3], top_k)
    visible = jnp.minimum(jnp.asarray(num_visible), self.num_chunks)
    if self._device_landmarks is not None:
      return search_device(query, self._device_landmarks, visible, top_k=top_k)
    # Blocks that no token sees are never read.
    end = int(jnp.max(visible)) if self.num_chunks else 0
    size = self._search_block
    for start in range(0, end, size):
      # The last block ends with the room; its overlap is passed over.
      begin = min(start, self.capacity - size)
      slot = np.arange(begin, begin + size, dtype=np.int32)
      ids = np.where(slot >= start, slot, -1)
      assert self._store is not None
      landmarks = self._store.landmarks(begin, begin + size)
      # One block is read while the device works on the one before.
      best = _meet(query, landmarks, ids, visible, jax.block_until_ready(best))
    return _to_selection(best)

  def read(
    self,
    query: Queries,
    selection: Selection,
    weights: Float[Array, "B T G K"] | None,
    *,
    sink: int,
  ) -> Queries:
    """Same answer as `ops.read.read_chunks` over all chunks held.

    Only the distinct chunks of a tile reach the device, padded to a power of
    two so that few shapes are ever compiled.
    """
    if self._layout is None or self.num_chunks == 0:
      return jnp.zeros_like(query)
    length = query.shape[1]
    tile = min(self._read_tile, length)
    missing = -length % tile
    slots = _pad(np.where(selection.valid, selection.index, 0), missing)
    queries = (query, selection.valid, weights)
    queries = jax.tree.map(lambda x: _pad(x, missing), queries)
    outs: list[Array] = []
    with ThreadPoolExecutor(max_workers=1) as pool:
      ahead = pool.submit(self._gather, slots[:, :tile])
      for start in range(0, length, tile):
        found = ahead.result()
        stop = start + tile
        if stop < length:
          ahead = pool.submit(self._gather, slots[:, stop : stop + tile])
        stored = jax.device_put(found.stored)
        jax.block_until_ready(outs[-1:])  # frees the chunks before the last
        where = (found.index, np.int32(start))
        outs.append(
          _read_tile(
            stored, *where, *queries, sink=sink, dtype=self._layout.dtype
          )
        )
    return jnp.concatenate(outs, axis=1)[:, :length]

  def landmarks(self, start: int, stop: int) -> Landmarks | np.ndarray:
    """Landmarks `[B C G R]` of consecutive chunks, from where they are."""
    if self._device_landmarks is not None:
      return self._device_landmarks[:, start:stop]
    assert self._store is not None, "chunks that are held"
    return np.swapaxes(self._store.landmarks(start, stop), 0, 1)

  def nbytes(self) -> MemoryBytes:
    """Bytes of the room, by place."""
    held = MemoryBytes(0, 0, 0) if self._store is None else self._store.nbytes()
    if self._device_landmarks is None:
      return held
    return held._replace(device=self._device_landmarks.nbytes)

  def _make_room(self, layout: Layout) -> None:
    self._layout, self._store = layout, self._open_store(layout)
    if self._landmark_place is LandmarkPlace.DEVICE:
      batch, heads, dim = layout.landmark.shape
      shape = (batch, self.capacity, heads, dim)
      self._device_landmarks = jnp.zeros(shape, layout.landmark.base)

  def _show_device(self, landmarks: Array | np.ndarray, start: int) -> None:
    """Copies landmarks `[C B G R]` of the store to the device."""
    if self._device_landmarks is not None:
      new = jnp.swapaxes(jnp.asarray(landmarks), 0, 1)
      self._device_landmarks = write_chunks(
        self._device_landmarks, new, jnp.int32(start)
      )

  def _gather(self, slots: Int[np.ndarray, "B T G K"]) -> "_Found":
    assert self._store is not None
    chunks, local = _distinct(slots)
    return _Found(from_records(self._store.records(chunks)), local)


class _Found(NamedTuple):
  """Chunks of one tile, and where among them each slot's chunk is."""

  stored: Stored
  index: Int[np.ndarray, "B T G K"]


_to_selection = jax.jit(to_selection)


@jax.jit
def _meet(
  query: Array,
  landmarks: Array,
  ids: Array,
  num_visible: Array,
  best: Candidates,
) -> Candidates:
  """`meet_block` on landmarks as stored, `[C B G R]`."""
  landmarks = jnp.swapaxes(landmarks, 0, 1)
  return meet_block(query, landmarks, ids, num_visible, best)


@functools.partial(jax.jit, static_argnames=("sink", "dtype"))
def _read_tile(
  stored: Stored,
  index: Array,
  start: Array,
  query: Array,
  valid: Array,
  weights: Array | None,
  *,
  sink: int,
  dtype: str,
) -> Array:
  """The queries `start ..` that `index` is about, among all of them."""

  def rows(x: Array) -> Array:
    return lax.dynamic_slice_in_dim(x, start, index.shape[1], axis=1)

  query, valid, weights = jax.tree.map(rows, (query, valid, weights))
  keys, values = decode(stored, jnp.dtype(dtype))
  # The read looks at index and validity; scores are in the weights.
  score = jnp.zeros(index.shape, jnp.float32)
  selection = Selection(index, score, valid)
  return read_chunks(query, keys, values, selection, weights, sink=sink)


def _pad(x: Any, missing: int) -> Any:
  """`missing` more queries of zeros on axis 1."""
  if not missing:
    return x
  room = jnp if isinstance(x, jax.Array) else np
  return room.pad(x, [(0, 0), (0, missing)] + [(0, 0)] * (x.ndim - 2))


def _distinct(
  index: Int[np.ndarray, "B T G K"],
) -> tuple[Int[np.ndarray, "B C"], Int[np.ndarray, "B T G K"]]:
  """Distinct ids per row, padded to a power of two, and where each went."""
  pairs = [np.unique(row, return_inverse=True) for row in index]
  most = max(len(ids) for ids, _ in pairs)
  width = 1 << max(most - 1, 0).bit_length()
  chunks = np.zeros((len(pairs), width), np.int32)
  local = np.zeros(index.shape, np.int32)
  for row, (ids, inverse) in enumerate(pairs):
    chunks[row, : len(ids)] = ids
    local[row] = inverse.reshape(index.shape[1:])
  return chunks, local
