"""A store in one preallocated file, reached by `pread` and `pwrite`.

Not mapped: pages of a mapping count as resident memory of the process, those of
the page cache do not. First come all landmarks, then all records, each chunk by
chunk, so that every append is one stretch of either part and can be
checksummed on the way.
"""

import errno
import os
import pathlib
import zlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from hsa_jax.memory.layout import Layout, format_bytes
from hsa_jax.memory.protocol import MemoryBytes, MemoryHomeError

_PIECE = 16 << 20  # bytes read at once when a checksum is verified


class Checksums(NamedTuple):
  """CRC-32 of landmarks and of records of consecutive chunks."""

  landmarks: int = 0
  records: int = 0


class FileStore:
  """A `streamed.Store` in a file.

  Attributes:
    path: the file.
    size: its bytes, all preallocated.
    checksums: of what was written since `restart_checksums`.
  """

  def __init__(self, path: pathlib.Path, layout: Layout, capacity: int):
    """Opens the file if it is there; makes no room yet (see `allocate`)."""
    self.path, self._layout = path, layout
    self._records_at = capacity * layout.landmark_bytes
    self.size = self._records_at + capacity * layout.record_bytes
    self.checksums = Checksums()
    self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)

  def allocate(self) -> None:
    """Takes all the room now, so that a full disk shows before the work.

    Raises:
      MemoryHomeError: if the disk has no such room; the file is removed.
    """
    try:
      os.ftruncate(self._fd, self.size)
      if self.size and hasattr(os, "posix_fallocate"):
        os.posix_fallocate(self._fd, 0, self.size)
    except OSError as error:
      self.path.unlink(missing_ok=True)
      raise self._explain(error) from error

  def write(
    self, start: int, landmarks: np.ndarray, records: np.ndarray
  ) -> None:
    """See `streamed.Store`; checksummed in order of writing.

    Raises:
      MemoryHomeError: if the disk is full or fails.
    """
    sums = Checksums(
      self._put(start * self._layout.landmark_bytes, landmarks, 0),
      self._put(
        self._records_at + start * self._layout.record_bytes, records, 1
      ),
    )
    self.checksums = sums

  def landmarks(self, start: int, stop: int) -> np.ndarray:
    out = np.empty(stop - start, self._layout.landmark)
    self._get(start * self._layout.landmark_bytes, out)
    return out

  def records(self, ids: Int[np.ndarray, "B C"]) -> np.ndarray:
    out = np.empty(ids.shape, self._layout.record)
    size = self._layout.record.itemsize
    for row, chunks in enumerate(ids):
      for place, chunk in enumerate(chunks):
        record = int(chunk) * self._layout.batch + row
        where = self._records_at + record * size
        self._get(where, out[row, place : place + 1])
    return out

  def nbytes(self) -> MemoryBytes:
    return MemoryBytes(device=0, host=0, disk=self.size)

  def sync(self) -> None:
    """Returns when everything written is on the disk.

    Raises:
      MemoryHomeError: if the disk is full or fails.
    """
    try:
      os.fsync(self._fd)
    except OSError as error:
      raise self._explain(error) from error

  def restart_checksums(self) -> None:
    self.checksums = Checksums()

  def verify(self, start: int, stop: int) -> Checksums:
    """Checksums of the chunks `start .. stop - 1` as they are in the file.

    Raises:
      EOFError: if the file ends before them.
    """
    marks, size = self._layout.landmark_bytes, self._layout.record_bytes
    return Checksums(
      self._sum(start * marks, stop * marks),
      self._sum(
        self._records_at + start * size, self._records_at + stop * size
      ),
    )

  def is_whole(self) -> bool:
    """Whether the file has its full size."""
    return os.fstat(self._fd).st_size == self.size

  def close(self) -> None:
    if self._fd >= 0:
      os.close(self._fd)
      self._fd = -1

  def _put(self, where: int, array: np.ndarray, part: int) -> int:
    data = _bytes(array)
    try:
      done = 0
      while done < len(data):
        done += os.pwrite(self._fd, data[done:], where + done)
    except OSError as error:
      raise self._explain(error) from error
    return zlib.crc32(data, self.checksums[part])

  def _get(self, where: int, out: np.ndarray) -> None:
    data, done = _bytes(out), 0
    while done < len(data):
      count = os.preadv(self._fd, [data[done:]], where + done)
      if count == 0:
        raise EOFError(f"{self.path} ends at byte {where + done}")
      done += count

  def _sum(self, begin: int, end: int) -> int:
    total = 0
    for where in range(begin, end, _PIECE):
      piece = np.empty(min(_PIECE, end - where), np.uint8)
      self._get(where, piece)
      total = zlib.crc32(piece.data, total)
    return total

  def _explain(self, error: OSError) -> MemoryHomeError:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
      return MemoryHomeError(f"{self.path}: {error.strerror}")
    status = os.statvfs(self.path.parent)
    free = format_bytes(status.f_bavail * status.f_frsize)
    bound = f"the disk has {free} left: free some, choose another folder,"
    if error.errno == errno.EFBIG:
      bound = "more than a file may have here (ulimit -f): raise that,"
    return MemoryHomeError(
      f"the disk memory {self.path} needs {format_bytes(self.size)}, {bound} or"
      " a smaller --kv-dtype (bfloat16, int8)"
    )


def _bytes(array: np.ndarray) -> memoryview:
  """The bytes of a contiguous array, not copied."""
  return array.reshape(-1).view(np.uint8).data
