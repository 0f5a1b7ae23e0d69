"""Chunk memory split over one mesh axis: queries and outputs move, chunks stay.

Chunk `i` lives on shard `i % M`, slot `i // M`, so shards fill evenly and
neighbouring chunks are read by different devices. A search takes each shard's
own top-k, gathers the K candidates of all, and merges them exactly. A read
happens where the chunks are (`sharded_read`); one sum joins the outputs.
"""

import dataclasses
import enum
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from hsa_jax.memory.device import take_room
from hsa_jax.memory.layout import Layout
from hsa_jax.memory.protocol import (
  MemoryBytes,
  MemoryHomeError,
  check_block,
  check_room,
)
from hsa_jax.memory.search import (
  Candidates,
  merge,
  no_candidates,
  search_landmarks,
  to_selection,
)
from hsa_jax.memory.sharded_read import read_owned, take_on_host, take_pairs
from hsa_jax.types import ChunkBlock, Queries, Selection


class KvPlace(enum.StrEnum):
  """Which memory of its device a shard keeps keys and values in."""

  DEVICE = "device"
  PINNED_HOST = "pinned_host"  # gathered by the host; landmarks stay


class Placement(NamedTuple):
  """Which devices hold the chunks, and in which of their memories.

  Attributes:
    mesh, axis: chunks are split over this axis; other axes hold copies.
    kv_place: where keys and values are.
  """

  mesh: Mesh
  axis: str
  kv_place: KvPlace = KvPlace.DEVICE

  @property
  def num_shards(self) -> int:
    """Parts the chunks are split into."""
    return self.mesh.shape[self.axis]


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=["arrays", "length"],
  meta_fields=["capacity", "placement"],
)
@dataclasses.dataclass(frozen=True)
class ShardedMemory:
  """A value, fit for `jax.jit`; made by `make_sharded`.

  `append` donates the arrays: the memory that it was called on is used up.

  Attributes:
    arrays: chunks by shard and slot, axis 1 split over `axis`.
    length: chunks held; traced inside `jax.jit`.
    capacity: chunks there is room for.
    placement: the devices.
  """

  arrays: ChunkBlock
  length: int | Array
  capacity: int
  placement: Placement

  @property
  def num_chunks(self) -> int:
    """Chunks held; outside `jax.jit` only."""
    return int(self.length)

  def append(self, block: ChunkBlock) -> "ShardedMemory":
    """A memory with `block` after the chunks held so far.

    Every process passes the whole block. Inside `jax.jit` the room cannot be
    checked: see to it before.

    Raises:
      ValueError: beyond the capacity, or if sizes or types differ.
    """
    count = block.landmarks.shape[1]
    if not isinstance(self.length, Tracer):
      check_room(self.num_chunks + count, self.capacity)
    check_block(self.arrays, block)
    if not count:
      return self
    length, block = jnp.int32(self.length), ChunkBlock(*block)
    arrays = _append(self.arrays, block, length, self.placement)
    return dataclasses.replace(self, arrays=arrays, length=self.length + count)

  def search(
    self,
    query: Float[Array, "B T G R"],
    *,
    num_visible: Int[Array, " T"],
    top_k: int,
  ) -> Selection:
    """Same answer as `ops.select.select_chunks` over all chunks held."""
    visible = jnp.minimum(num_visible, self.length)
    landmarks = self.arrays.landmarks
    return _search(query, landmarks, visible, top_k, self.placement)

  def read(
    self,
    query: Queries,
    selection: Selection,
    weights: Float[Array, "B T G K"] | None,
    *,
    sink: int,
  ) -> Queries:
    """Same answer as `ops.read.read_chunks` over all chunks held.

    Cost per shard: the chunks that it owns among the selected ones, in passes
    of a fixed number of slots.
    """
    kv = (self.arrays.keys, self.arrays.values)
    return _read(query, kv, selection, weights, sink, self.placement)

  def landmarks(self, start: int, stop: int) -> Array:
    """Landmarks of consecutive chunks, on every device."""
    shards = self.placement.num_shards
    room = self.arrays.landmarks.shape[1] // shards
    ids = np.arange(start, stop)
    where = ids % shards * room + ids // shards
    return _take_landmarks(self.arrays.landmarks, where, self.placement)

  def nbytes(self) -> MemoryBytes:
    """Bytes of all shards together, unused room included."""
    landmarks, keys, values = (x.nbytes for x in self.arrays)
    if self.placement.kv_place is KvPlace.PINNED_HOST:
      return MemoryBytes(device=landmarks, host=keys + values, disk=0)
    return MemoryBytes(device=landmarks + keys + values, host=0, disk=0)


def make_sharded(
  layout: Layout, capacity: int, placement: Placement
) -> ShardedMemory:
  """An empty memory with its room.

  Raises:
    MemoryHomeError: if the devices have no memory of the kind asked for, or
      refuse it.
  """
  check_placement(placement)
  abstract = abstract_sharded(layout, capacity, placement)
  arrays = take_room(_room_program(layout, capacity, placement))
  return dataclasses.replace(abstract, arrays=arrays, length=0)


def check_placement(placement: Placement) -> None:
  """Raises `MemoryHomeError` if the devices lack the memory asked for."""
  device = placement.mesh.local_devices[0]
  kinds = {memory.kind for memory in device.addressable_memories()}
  if placement.kv_place not in kinds | {KvPlace.DEVICE}:
    raise MemoryHomeError(
      f"--kv-place={placement.kv_place}: {device.platform} devices have memory"
      f" of kind {', '.join(sorted(kinds))} only; use --kv-place=device, or"
      " --memory=host"
    )


def slots_per_shard(capacity: int, shards: int) -> int:
  """Room of a shard, in chunks.

  One to spare: an append writes equally many slots on every shard.
  """
  return -(-capacity // shards) + 1


def abstract_sharded(
  layout: Layout, capacity: int, placement: Placement
) -> ShardedMemory:
  """Shapes and shardings only: to compile for devices that are not here."""
  mesh, axis, kv_place = placement
  room = placement.num_shards * slots_per_shard(capacity, placement.num_shards)

  def array(dtype: str, *shape: int, kind: str) -> Any:
    sharding = NamedSharding(mesh, P(None, axis), memory_kind=kind)
    shape = (layout.batch, room, *shape)
    return jax.ShapeDtypeStruct(shape, jnp.dtype(dtype), sharding=sharding)

  landmark = (layout.retrieval_heads, layout.landmark_dim)
  chunk = (layout.chunk_size, layout.memory_heads, layout.head_dim)
  arrays = ChunkBlock(
    array(layout.landmark_dtype, *landmark, kind="device"),
    array(layout.dtype, *chunk, kind=kv_place),
    array(layout.dtype, *chunk, kind=kv_place),
  )
  length: Any = jax.ShapeDtypeStruct((), jnp.int32)
  return ShardedMemory(arrays, length, capacity, placement)


@functools.lru_cache(maxsize=8)
def _room_program(
  layout: Layout, capacity: int, placement: Placement
) -> Callable[[], ChunkBlock]:
  """Makes the empty arrays where they belong; compiled once per size."""
  arrays = abstract_sharded(layout, capacity, placement).arrays
  shardings: Any = [x.sharding for x in arrays]

  @functools.partial(jax.jit, out_shardings=ChunkBlock(*shardings))
  def room() -> ChunkBlock:
    return ChunkBlock(*(jnp.zeros(x.shape, x.dtype) for x in arrays))

  return room


@functools.partial(jax.jit, static_argnums=2)
def _take_landmarks(held: Array, where: Array, placement: Placement) -> Array:
  taken = jnp.take(held, where, axis=1)
  whole = NamedSharding(placement.mesh, P())
  return lax.with_sharding_constraint(taken, whole)


@functools.partial(jax.jit, donate_argnums=0, static_argnums=3)
def _append(
  held: ChunkBlock, new: ChunkBlock, length: Array, placement: Placement
) -> ChunkBlock:
  """Each shard writes the chunks that it owns, which follow one another."""
  mesh, axis, kv_place = placement
  shards, count = placement.num_shards, new.landmarks.shape[1]

  def write(held: ChunkBlock, new: ChunkBlock, length: Array) -> ChunkBlock:
    first = (lax.axis_index(axis) - length) % shards  # of the block
    slot = (length + first) // shards
    ids = first + shards * jnp.arange(-(-count // shards))
    # Beyond the block its last chunk is repeated, into a slot that the next
    # append writes again, or into the spare one.
    mine = [x[:, jnp.minimum(ids, count - 1)] for x in new]
    if kv_place is KvPlace.PINNED_HOST:
      mine[1:] = jax.device_put(mine[1:], jax.memory.Space.Host)
    put = functools.partial(lax.dynamic_update_slice_in_dim, axis=1)
    pairs = zip(held, mine, strict=True)
    return ChunkBlock(*(put(old, new, slot) for old, new in pairs))

  spec = P(None, axis)
  write = jax.shard_map(
    write, mesh=mesh, in_specs=(spec, P(), P()), out_specs=spec
  )
  return write(held, new, length)


@functools.partial(jax.jit, static_argnums=(3, 4))
def _search(
  query: Array,
  landmarks: Array,
  num_visible: Array,
  top_k: int,
  placement: Placement,
) -> Selection:
  mesh, axis, _ = placement

  def search(query: Array, landmarks: Array, num_visible: Array) -> Selection:
    start = no_candidates(query.shape[:3], top_k)
    mine = search_landmarks(
      query,
      landmarks,
      num_visible=num_visible,
      best=jax.tree.map(lambda x: lax.pcast(x, axis, to="varying"), start),
      first=lax.axis_index(axis),
      stride=placement.num_shards,
    )
    gather = functools.partial(
      lax.all_gather, axis_name=axis, axis=3, tiled=True, to="invarying"
    )
    return to_selection(merge(Candidates(*map(gather, mine)), top_k))

  search = jax.shard_map(
    search, mesh=mesh, in_specs=(P(), P(None, axis), P()), out_specs=P()
  )
  return search(query, landmarks, num_visible)


@functools.partial(jax.jit, static_argnums=(4, 5))
def _read(
  query: Array,
  kv: tuple[Array, Array],
  selection: Selection,
  weights: Array | None,
  sink: int,
  placement: Placement,
) -> Array:
  mesh, axis, kv_place = placement
  take = take_on_host if kv_place is KvPlace.PINNED_HOST else take_pairs
  read = functools.partial(
    read_owned, axis=axis, shards=placement.num_shards, sink=sink, take=take
  )
  specs = (P(), P(None, axis), P(), P())
  read = jax.shard_map(read, mesh=mesh, in_specs=specs, out_specs=P())
  return read(query, kv, selection, weights)
