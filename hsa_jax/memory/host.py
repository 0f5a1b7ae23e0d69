"""Chunk memory in host RAM, for contexts that must not grow device shapes."""

import numpy as np
from jaxtyping import Int

from hsa_jax.memory.layout import Layout, format_bytes
from hsa_jax.memory.protocol import MemoryBytes, MemoryHomeError
from hsa_jax.memory.streamed import LandmarkPlace, StreamedMemory


class HostMemory(StreamedMemory):
  """Chunks in preallocated numpy arrays; pages are taken as they fill."""

  def _open_store(self, layout: Layout) -> "RamStore":
    keep = self._landmark_place is LandmarkPlace.STORE
    return RamStore(layout, self.capacity, keep_landmarks=keep)


class RamStore:
  """A `streamed.Store` in RAM."""

  def __init__(self, layout: Layout, capacity: int, *, keep_landmarks: bool):
    """Makes the room.

    Raises:
      MemoryHomeError: if the system refuses it.
    """
    landmarks = capacity if keep_landmarks else 0
    try:
      self._landmarks = np.zeros(landmarks, layout.landmark)
      self._records = np.zeros((capacity, layout.batch), layout.record)
    except MemoryError as error:
      needed = landmarks * layout.landmark_bytes
      needed += capacity * layout.record_bytes
      raise MemoryHomeError(
        f"the host memory of {capacity} chunks needs {format_bytes(needed)} of"
        " RAM, and the system refuses it: use --memory=disk, or a smaller"
        " --kv-dtype (bfloat16, int8)"
      ) from error
    self._rows = np.arange(layout.batch)[:, None]

  def write(
    self, start: int, landmarks: np.ndarray, records: np.ndarray
  ) -> None:
    stop = start + len(records)
    if len(self._landmarks):
      self._landmarks[start:stop] = landmarks
    self._records[start:stop] = records

  def landmarks(self, start: int, stop: int) -> np.ndarray:
    return self._landmarks[start:stop]

  def records(self, ids: Int[np.ndarray, "B C"]) -> np.ndarray:
    return self._records[ids, self._rows]

  def nbytes(self) -> MemoryBytes:
    total = self._landmarks.nbytes + self._records.nbytes
    return MemoryBytes(device=0, host=total, disk=0)
