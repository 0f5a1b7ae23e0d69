"""Chunk memory in device arrays: a value, fit for `jax.jit`."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from hsa_jax.memory.layout import format_bytes
from hsa_jax.memory.protocol import MemoryBytes, MemoryHomeError, check_block
from hsa_jax.memory.search import (
  no_candidates,
  search_landmarks,
  to_selection,
)
from hsa_jax.ops.read import read_chunks
from hsa_jax.ops.select import empty_selection
from hsa_jax.types import ChunkBlock, Landmarks, Queries, Selection


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=["arrays", "length"],
  meta_fields=["capacity"],
)
@dataclasses.dataclass(frozen=True)
class DeviceMemory:
  """Chunks in preallocated arrays, written in place.

  `append` donates the arrays: the memory that it was called on is used up.
  Inside `jax.jit` the room cannot grow; `reserve` it before.

  Attributes:
    capacity: chunks to make room for at the first append; beyond it the room
      doubles, at the price of a copy and of a new shape.
    arrays: the chunks, then unused room; None before the first append.
    length: chunks held; traced inside `jax.jit`.
  """

  capacity: int = 0
  arrays: ChunkBlock | None = None
  length: int | Array = 0

  @property
  def num_chunks(self) -> int:
    """Chunks held; outside `jax.jit` only."""
    return int(self.length)

  @property
  def room(self) -> int:
    """Chunks that the present arrays can hold."""
    return 0 if self.arrays is None else self.arrays.landmarks.shape[1]

  def append(self, block: ChunkBlock) -> "DeviceMemory":
    """A memory with `block` after the chunks held so far.

    Raises:
      ValueError: if batch, heads, sizes or types differ from what is held.
      MemoryHomeError: if the device refuses the room.
    """
    count = block.landmarks.shape[1]
    memory = self
    if memory.arrays is None:
      room = max(self.capacity, count)
      arrays = take_room(lambda: _room_like(block, room))
      memory = dataclasses.replace(self, arrays=arrays)
    elif not isinstance(self.length, Tracer):
      memory = self.reserve(self.num_chunks + count)
    assert memory.arrays is not None
    check_block(memory.arrays, block)
    arrays = _write(memory.arrays, ChunkBlock(*block), jnp.int32(self.length))
    return dataclasses.replace(
      memory, arrays=arrays, length=self.length + count
    )

  def reserve(self, num_chunks: int) -> "DeviceMemory":
    """A memory with room for `num_chunks`, at least doubled if it grows."""
    if self.arrays is None:
      capacity = max(self.capacity, num_chunks)
      return dataclasses.replace(self, capacity=capacity)
    if num_chunks <= self.room:
      return self
    room = max(num_chunks, 2 * self.room)
    held = self.arrays
    wide = take_room(lambda: _room_like(held, room))
    arrays = _write(wide, self.arrays, jnp.int32(0))
    return dataclasses.replace(self, arrays=arrays)

  def search(
    self,
    query: Float[Array, "B T G R"],
    *,
    num_visible: Int[Array, " T"],
    top_k: int,
  ) -> Selection:
    """Same answer as `ops.select.select_chunks`, in blocks of landmarks."""
    if self.arrays is None:
      return empty_selection(query.shape[:3], top_k)
    visible = jnp.minimum(num_visible, self.length)
    return search_device(query, self.arrays.landmarks, visible, top_k=top_k)

  def read(
    self,
    query: Queries,
    selection: Selection,
    weights: Float[Array, "B T G K"] | None,
    *,
    sink: int,
  ) -> Queries:
    """See `ops.read.read_chunks`."""
    if self.arrays is None:
      return jnp.zeros_like(query)
    keys, values = self.arrays.keys, self.arrays.values
    return _read(query, keys, values, selection, weights, sink=sink)

  def landmarks(self, start: int, stop: int) -> Landmarks:
    """Landmarks of consecutive chunks, of which there is at least one."""
    assert self.arrays is not None, "chunks that are held"
    return self.arrays.landmarks[:, start:stop]

  def nbytes(self) -> MemoryBytes:
    """Bytes of the arrays, unused room included."""
    total = sum(leaf.nbytes for leaf in jax.tree.leaves(self.arrays))
    return MemoryBytes(device=total, host=0, disk=0)


@functools.partial(jax.jit, static_argnames="top_k")
def search_device(
  query: Float[Array, "B T G R"],
  landmarks: Float[Array, "B C G R"],
  num_visible: Int[Array, " T"],
  *,
  top_k: int,
) -> Selection:
  """The `top_k` best of landmarks that lie in one device array."""
  best = no_candidates(query.shape[:3], top_k)
  best = search_landmarks(query, landmarks, num_visible=num_visible, best=best)
  return to_selection(best)


@functools.partial(jax.jit, donate_argnums=0)
def write_chunks(held: Array, new: Array, start: Array) -> Array:
  """`new` into `held` from chunk `start` on, in place."""
  return lax.dynamic_update_slice_in_dim(held, new, start, axis=1)


_read = jax.jit(read_chunks, static_argnames=("sink", "implementation"))


def _write(held: ChunkBlock, new: ChunkBlock, start: Array) -> ChunkBlock:
  return ChunkBlock(
    *(write_chunks(h, n, start) for h, n in zip(held, new, strict=True))
  )


def take_room(make: Callable[[], ChunkBlock]) -> ChunkBlock:
  """The arrays that `make` returns, once they exist.

  Not waited for, a refusal might show only where their contents are looked at:
  after the whole context was read.

  Raises:
    MemoryHomeError: if the devices refuse the memory.
  """
  try:
    arrays = make()
    inside_jit = isinstance(arrays.landmarks, Tracer)
    return arrays if inside_jit else jax.block_until_ready(arrays)
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise
    shapes = jax.eval_shape(make)
    needed = format_bytes(sum(x.size * x.dtype.itemsize for x in shapes))
    raise MemoryHomeError(
      f"the chunks need {needed} of device memory, and it is refused: use"
      " --memory=host or --memory=disk"
    ) from error


def _room_like(block: ChunkBlock, room: int) -> ChunkBlock:
  """Zeros, which keep scores of unused room finite."""

  def empty(x: Array) -> Array:
    return jnp.zeros((x.shape[0], room, *x.shape[2:]), x.dtype)

  return ChunkBlock(*map(empty, block))
