"""Chunk memory in device arrays: one block, a plain pytree."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from hsa_jax.memory.protocol import MemoryBytes
from hsa_jax.ops.read import read_chunks
from hsa_jax.ops.select import empty_selection, select_chunks
from hsa_jax.types import ChunkBlock, Queries, Selection


class DeviceMemory(NamedTuple):
  """All chunks in one `ChunkBlock` (None: no chunk yet); fit for `jax.jit`.

  Every append makes new arrays: fit for short contexts and for tests. A long
  stream belongs into `HostMemory`, whose shapes do not grow.
  """

  block: ChunkBlock | None = None

  @property
  def num_chunks(self) -> int:
    return 0 if self.block is None else self.block.landmarks.shape[1]

  def append(self, block: ChunkBlock) -> "DeviceMemory":
    """A memory with `block` after the chunks held so far.

    Raises:
      ValueError: if batch, heads or sizes differ from what is held.
    """
    if self.block is None:
      return DeviceMemory(jax.tree.map(jnp.asarray, block))
    check_block(self.block, block)
    joined = jax.tree.map(
      lambda old, new: jnp.concatenate([old, new], axis=1), self.block, block
    )
    return DeviceMemory(joined)

  def search(
    self,
    query: Float[Array, "B T G R"],
    *,
    num_visible: Int[Array, " T"],
    top_k: int,
  ) -> Selection:
    """See `ops.select.select_chunks`."""
    if self.block is None:
      return empty_selection(query.shape[:3], top_k)
    return select_chunks(
      query,
      self.block.landmarks,
      num_visible=num_visible,
      top_k=top_k,
    )

  def read(
    self,
    query: Queries,
    selection: Selection,
    weights: Float[Array, "B T G K"] | None,
    *,
    sink: int,
  ) -> Queries:
    """See `ops.read.read_chunks`."""
    if self.block is None:
      return jnp.zeros_like(query)
    keys, values = self.block.keys, self.block.values
    return read_chunks(query, keys, values, selection, weights, sink=sink)

  def nbytes(self) -> MemoryBytes:
    total = sum(leaf.nbytes for leaf in jax.tree.leaves(self.block))
    return MemoryBytes(device=total, host=0, disk=0)


def check_block(held: ChunkBlock, block: ChunkBlock) -> None:
  """Raises `ValueError` unless `block` continues `held`."""
  for name, old, new in zip(ChunkBlock._fields, held, block, strict=True):
    if old.shape[:1] + old.shape[2:] != new.shape[:1] + new.shape[2:]:
      raise ValueError(
        f"append: {name} of shape {new.shape} cannot follow {old.shape}; only"
        " the second axis (chunks) may differ"
      )
