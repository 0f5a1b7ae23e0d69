"""What the upper decoder needs of a chunk memory, wherever the chunks live."""

from typing import NamedTuple, Protocol

from jaxtyping import Array, Float, Int

from hsa_jax.types import ChunkBlock, Queries, Selection


class MemoryBytes(NamedTuple):
  """Bytes a memory holds, by place."""

  device: int
  host: int
  disk: int


class ChunkMemory(Protocol):
  """Chunks of one batch of sequences, in order of appearance.

  `append` returns the memory that holds the block as well: a new one where the
  home is a value (device arrays), the same object where it is a place (host).
  """

  @property
  def num_chunks(self) -> int:
    """Complete chunks held, the same for every row of the batch."""
    ...

  def append(self, block: ChunkBlock) -> "ChunkMemory":
    """Adds consecutive complete chunks at the end."""
    ...

  def search(
    self,
    query: Float[Array, "B T G R"],
    *,
    num_visible: Int[Array, " T"],
    top_k: int,
  ) -> Selection:
    """The `top_k` best visible chunks of each token, nearest first."""
    ...

  def read(
    self,
    query: Queries,
    selection: Selection,
    weights: Float[Array, "B T G K"] | None,
    *,
    sink: int,
  ) -> Queries:
    """Weighted sum over the selected chunks of attention inside each."""
    ...

  def nbytes(self) -> MemoryBytes:
    """Bytes held now."""
    ...
