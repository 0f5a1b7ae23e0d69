"""Chunk memory in host RAM, for contexts that must not grow device shapes.

The arrays are preallocated for a known number of chunks. A search streams the
landmarks through one compiled program of fixed shape that keeps a running
exact top-k; a read uploads only the chunks that were selected. Device memory
therefore does not depend on the length of the context.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from hsa_jax.memory.device import check_block
from hsa_jax.memory.protocol import MemoryBytes
from hsa_jax.ops.read import read_chunks
from hsa_jax.ops.select import nearest_first, retrieval_scores
from hsa_jax.types import ChunkBlock, Queries, Selection

SEARCH_BLOCK = 16_384  # chunks per search program; top-k gains little beyond


class HostMemory:
  """Chunks of one batch in preallocated numpy arrays.

  Attributes:
    capacity: chunks there is room for.
    num_chunks: chunks held.
  """

  def __init__(self, capacity: int, *, search_block: int = SEARCH_BLOCK):
    """Makes an empty memory; arrays are made by the first `append`.

    Args:
      capacity: the most chunks that will ever be held, at least 0.
      search_block: landmarks per call of the search program.

    Raises:
      ValueError: for a negative capacity or a block below 1.
    """
    if capacity < 0 or search_block < 1:
      raise ValueError(
        f"capacity = {capacity}, search_block = {search_block}: capacity must"
        " not be negative, the block at least 1"
      )
    self.capacity = capacity
    self.num_chunks = 0
    self._search_block = min(search_block, _power_of_two(capacity))
    self._arrays: ChunkBlock | None = None

  def clear(self) -> None:
    """Forgets the chunks and keeps the room, for the next sequences."""
    self.num_chunks = 0

  def append(self, block: ChunkBlock) -> "HostMemory":
    """Copies `block` behind the chunks held so far.

    Raises:
      ValueError: beyond the capacity, or if sizes differ from what is held.
    """
    stop = self.num_chunks + block.landmarks.shape[1]
    if stop > self.capacity:
      raise ValueError(
        f"append: {stop} chunks do not fit the capacity {self.capacity}"
      )
    if self._arrays is None:
      self._arrays = self._allocate(block)
    check_block(self._arrays, block)
    for held, new in zip(self._arrays, block, strict=True):
      held[:, self.num_chunks : stop] = np.asarray(new)
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

    Cost: device memory of one block: [B T G search_block] float32 scores.
    """
    if top_k < 1:
      raise ValueError(f"top_k = {top_k}: must be at least 1")
    best = _no_candidates((*query.shape[:3], top_k))
    visible = jnp.minimum(jnp.asarray(num_visible), self.num_chunks)
    # Blocks that no token sees are never uploaded.
    end = int(jnp.max(visible)) if self.num_chunks else 0
    for start in range(0, end, self._search_block):
      landmarks = self._landmarks(start)
      best = _merge_block(query, landmarks, np.int32(start), visible, best)
    return _finish(best)

  def read(
    self,
    query: Queries,
    selection: Selection,
    weights: Float[Array, "B T G K"] | None,
    *,
    sink: int,
  ) -> Queries:
    """Same answer as `ops.read.read_chunks` over all chunks held.

    Only the distinct selected chunks reach the device, at most T*G*K per row,
    padded to a power of two so that few shapes are ever compiled.
    """
    if self._arrays is None or self.num_chunks == 0:
      return jnp.zeros_like(query)
    index, valid = np.asarray(selection.index), np.asarray(selection.valid)
    chunks, local = _distinct(np.where(valid, index, 0))
    rows = np.arange(index.shape[0])[:, None]
    keys = jnp.asarray(self._arrays.keys[rows, chunks])
    values = jnp.asarray(self._arrays.values[rows, chunks])
    selection = selection._replace(index=jnp.asarray(local))
    return _read(query, keys, values, selection, weights, sink=sink)

  def nbytes(self) -> MemoryBytes:
    """Bytes of the preallocated arrays."""
    arrays = self._arrays or ()
    return MemoryBytes(device=0, host=sum(a.nbytes for a in arrays), disk=0)

  def _allocate(self, block: ChunkBlock) -> ChunkBlock:
    # Landmarks get whole search blocks; zeros keep the padding finite.
    padded = -(-self.capacity // self._search_block) * self._search_block

    def room(array: Array, chunks: int) -> Any:
      shape = (array.shape[0], chunks, *array.shape[2:])
      return np.zeros(shape, array.dtype)

    return ChunkBlock(
      room(block.landmarks, padded),
      room(block.keys, self.capacity),
      room(block.values, self.capacity),
    )

  def _landmarks(self, start: int) -> Array:
    assert self._arrays is not None
    return jnp.asarray(
      self._arrays.landmarks[:, start : start + self._search_block]
    )


_read = jax.jit(read_chunks, static_argnames=("sink", "implementation"))


def _power_of_two(number: int) -> int:
  return 1 << max(number - 1, 0).bit_length()


def _no_candidates(shape: tuple[int, ...]) -> tuple[Array, Array]:
  return jnp.full(shape, -jnp.inf, jnp.float32), jnp.full(shape, -1, jnp.int32)


@functools.partial(jax.jit, donate_argnums=4)
def _merge_block(
  query: Array,
  landmarks: Array,
  start: Array,
  num_visible: Array,
  best: tuple[Array, Array],
) -> tuple[Array, Array]:
  """Running top-k over one more block of landmarks.

  `lax.top_k` prefers the earlier of equals, so candidates are laid out from
  the latest chunk to the earliest: the block reversed, then what was best.
  """
  best_score, best_index = best
  ids = start + jnp.arange(landmarks.shape[1], dtype=jnp.int32)[::-1]
  scores = retrieval_scores(query, landmarks)[..., ::-1]
  visible = ids[None, :] < num_visible[:, None]
  scores = jnp.where(visible[None, :, None], scores, -jnp.inf)
  block_score, slot = lax.top_k(scores, min(best_score.shape[-1], len(ids)))
  # Narrowed first: the merge then sorts 2K candidates, not a whole block.
  scores = jnp.concatenate([block_score, best_score], axis=-1)
  index = jnp.concatenate([ids[slot], best_index], axis=-1)
  score, slot = lax.top_k(scores, best_score.shape[-1])
  return score, jnp.take_along_axis(index, slot, axis=-1)


@jax.jit
def _finish(best: tuple[Array, Array]) -> Selection:
  """Nearest-first order; unused slots at the tail."""
  score, index = best
  index = jnp.where(score > -jnp.inf, index, -1)
  score = jnp.take_along_axis(score, jnp.argsort(-index, axis=-1), axis=-1)
  index = nearest_first(index)
  return Selection(jnp.maximum(index, 0), score, index >= 0)


def _distinct(
  index: Int[np.ndarray, "B T G K"],
) -> tuple[Int[np.ndarray, "B C"], Int[np.ndarray, "B T G K"]]:
  """Distinct ids per row, padded to a power of two, and where each went."""
  pairs = [np.unique(row, return_inverse=True) for row in index]
  width = _power_of_two(max(len(ids) for ids, _ in pairs))
  chunks = np.zeros((len(pairs), width), np.int32)
  local = np.zeros(index.shape, np.int32)
  for row, (ids, inverse) in enumerate(pairs):
    chunks[row, : len(ids)] = ids
    local[row] = inverse.reshape(index.shape[1:])
  return chunks, local
