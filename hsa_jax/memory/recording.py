"""A memory that remembers what was selected, for retrieval diagnostics."""

import enum
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from hsa_jax.memory.protocol import ChunkMemory, MemoryBytes
from hsa_jax.types import ChunkBlock, Landmarks, Queries, Selection


class Detail(enum.Enum):
  """How much is remembered."""

  SELECTIONS = 1
  QUERIES_AND_WEIGHTS = 2


class Search(NamedTuple):
  """One search, as numpy arrays.

  Attributes:
    selection: what it found.
    num_visible: chunks that each query could choose from.
    query: retrieval queries `[B T G R]`; None unless asked for.
  """

  selection: Selection
  num_visible: Int[np.ndarray, " T"]
  query: Float[np.ndarray, "B T G R"] | None


class Read(NamedTuple):
  """One read.

  Attributes:
    after: searches before it.
    weights: of the chunks `[B T G K]`, for each memory head; None unless asked
      for, or where the rule has none.
  """

  after: int
  weights: Float[np.ndarray, "B T G K"] | None


class RecordingMemory:
  """Passes everything on to `memory` and keeps what its calls were about.

  Attributes:
    memory: the home of the chunks.
    searches, reads: one per call, that is one per upper group for each stretch
      of tokens, in order. Filled outside `jax.jit` only. Tokens that share the
      retrieval of the stretch before read without a search.
  """

  def __init__(
    self, memory: ChunkMemory, detail: Detail = Detail.SELECTIONS
  ) -> None:
    self.memory = memory
    self.searches: list[Search] = []
    self.reads: list[Read] = []
    self._all = detail is Detail.QUERIES_AND_WEIGHTS

  @property
  def keeps_queries(self) -> bool:
    """Whether a `Search` has its queries."""
    return self._all

  @property
  def selections(self) -> list[Selection]:
    """What the searches found."""
    return [search.selection for search in self.searches]

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
    kept, visible = jax.device_get((selection, num_visible))
    asked = np.asarray(query) if self._all else None
    self.searches.append(Search(kept, visible, asked))
    return selection

  def read(
    self,
    query: Queries,
    selection: Selection,
    weights: Float[Array, "B T G K"] | None,
    *,
    sink: int,
  ) -> Queries:
    keep = self._all and weights is not None
    kept = np.asarray(weights, np.float32) if keep else None
    self.reads.append(Read(len(self.searches), kept))
    return self.memory.read(query, selection, weights, sink=sink)

  def landmarks(self, start: int, stop: int) -> Landmarks | np.ndarray:
    return self.memory.landmarks(start, stop)

  def nbytes(self) -> MemoryBytes:
    return self.memory.nbytes()
