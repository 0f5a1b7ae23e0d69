"""A memory that remembers what was selected, for retrieval diagnostics."""

import jax
from jaxtyping import Array, Float, Int

from hsa_jax.memory.protocol import ChunkMemory, MemoryBytes
from hsa_jax.types import ChunkBlock, Queries, Selection


class RecordingMemory:
  """Passes everything on to `memory` and keeps each search's selection.

  Attributes:
    memory: the home of the chunks.
    selections: one `Selection` of numpy arrays per search call, that is one
      per upper group, in order. Filled outside `jax.jit` only.
  """

  def __init__(self, memory: ChunkMemory):
    self.memory = memory
    self.selections: list[Selection] = []

  @property
  def num_chunks(self) -> int:
    return self.memory.num_chunks

  def append(self, block: ChunkBlock) -> "RecordingMemory":
    self.memory = self.memory.append(block)
    return self

  def search(
    self,
    query: Float[Array, "B T G R"],
    *,
    num_visible: Int[Array, " T"],
    top_k: int,
  ) -> Selection:
    selection = self.memory.search(query, num_visible=num_visible, top_k=top_k)
    self.selections.append(jax.device_get(selection))
    return selection

  def read(
    self,
    query: Queries,
    selection: Selection,
    weights: Float[Array, "B T G K"] | None,
    *,
    sink: int,
  ) -> Queries:
    return self.memory.read(query, selection, weights, sink=sink)

  def nbytes(self) -> MemoryBytes:
    return self.memory.nbytes()
