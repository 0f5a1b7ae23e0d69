"""What every home of the chunk memory offers, and the error they share."""

from typing import NamedTuple, Protocol

import numpy as np

from hsa_jax.types import ChunkBlock, Landmarks, Searchable


class MemoryBytes(NamedTuple):
  """Bytes a memory holds, by place."""

  device: int
  host: int
  disk: int


class MemoryHomeError(RuntimeError):
  """A home cannot hold the chunks; the message says what would help."""


class ChunkMemory(Searchable, Protocol):
  """Chunks of one batch of sequences, in order of appearance.

  `append` returns the memory that holds the block as well, and uses up the one
  it was called on: a new value where the home is a value (device arrays), the
  same object where it is a place (host, disk).
  """

  @property
  def num_chunks(self) -> int:
    """Complete chunks held, the same for every row of the batch."""
    ...

  def append(self, block: ChunkBlock) -> "ChunkMemory":
    """Adds consecutive complete chunks at the end."""
    ...

  def landmarks(self, start: int, stop: int) -> Landmarks | np.ndarray:
    """Landmarks of the chunks `start .. stop - 1`, all of them held."""
    ...

  def nbytes(self) -> MemoryBytes:
    """Bytes held now."""
    ...


def check_block(held: ChunkBlock, block: ChunkBlock) -> None:
  """Raises `ValueError` unless `block` continues `held`."""
  for name, old, new in zip(ChunkBlock._fields, held, block, strict=True):
    same = old.shape[:1] + old.shape[2:] == new.shape[:1] + new.shape[2:]
    if not same or old.dtype != new.dtype:
      raise ValueError(
        f"append: {name} of shape {new.shape} ({new.dtype}) cannot follow"
        f" {old.shape} ({old.dtype}); only the second axis (chunks) may differ"
      )


def check_room(stop: int, capacity: int) -> None:
  """Raises `ValueError` if `stop` chunks exceed the capacity."""
  if stop > capacity:
    raise ValueError(
      f"append: {stop} chunks do not fit the capacity {capacity}"
    )
