"""Chunk memory in a file: larger than RAM, and taken up again after a crash.

`append` writes; `commit` makes durable what was written, together with a state
of the caller's (the window caches of the prefill), so that reading a context
can go on from there. A file that is truncated, altered or about something else
is noticed when it is opened, and started anew.
"""

import contextlib
import dataclasses
import os
import pathlib
import zlib
from collections.abc import Iterator
from typing import Any

import jax

from hsa_jax.memory.file_store import FileStore
from hsa_jax.memory.header import (
  DamagedError,
  Extent,
  Header,
  read_header,
  write_atomic,
  write_header,
)
from hsa_jax.memory.layout import Layout
from hsa_jax.memory.protocol import MemoryHomeError
from hsa_jax.memory.streamed import StreamedMemory

_FILL_BLOCK = 16_384  # landmarks copied to the device at once


class DiskMemory(StreamedMemory):
  """Chunks in one file of this process, with a small header beside it.

  Attributes:
    notice: why chunks found on disk were not taken up; empty otherwise.
  """

  def __init__(
    self,
    folder: str | os.PathLike[str],
    capacity: int,
    *,
    layout: Layout,
    identity: str = "",
    **options: Any,
  ):
    """Takes up what an interrupted process left, or starts anew.

    Args:
      folder: where the files are; made if missing.
      capacity: the most chunks that will ever be held.
      layout: sizes of a chunk.
      identity: of model and context; chunks of another are not taken up.
      **options: see `StreamedMemory`.

    Raises:
      MemoryHomeError: if the folder cannot be used or the disk has no room.
    """
    self.notice = ""
    self._folder = pathlib.Path(folder)
    name = f"chunks-{jax.process_index()}"
    self._header_path = self._folder / f"{name}.json"
    self._state_path = self._folder / f"{name}.state"
    self._data_path = self._folder / f"{name}.bin"
    fields = {k: v for k, v in layout._asdict().items()}
    self._header = Header(identity, fields, capacity)
    super().__init__(capacity, layout=layout, **options)
    self._take_up()

  def _open_store(self, layout: Layout) -> FileStore:
    try:
      self._folder.mkdir(parents=True, exist_ok=True)
      self._found = self._data_path.exists()
      return FileStore(self._data_path, layout, self.capacity)
    except OSError as error:
      raise MemoryHomeError(
        f"disk memory {self._folder}: {error.strerror}; choose another folder"
      ) from error

  @property
  def num_durable(self) -> int:
    """Chunks that survive a crash."""
    return self._header.num_chunks

  def commit(self, state: bytes | None = None) -> None:
    """Makes all chunks durable, and `state` with them.

    The data are synced before the header names them. A crash in between leaves
    the previous commit in force, with its own state.

    Args:
      state: what the caller needs to go on from here; see `state`.

    Raises:
      MemoryHomeError: if the disk is full or fails.
    """
    store = self._file
    store.sync()
    extents = self._header.extents
    if self.num_chunks > self.num_durable:
      new = Extent(self.num_durable, self.num_chunks, *store.checksums)
      extents += (new,)
    store.restart_checksums()
    crc = None if state is None else zlib.crc32(state)
    header = dataclasses.replace(self._header, extents=extents, state=crc)
    with self._explained():
      if state is not None:
        write_atomic(self._state_file(header), state)
      write_header(self._header_path, header)
    self._header, old = header, self._header
    if self._state_file(old) != self._state_file(header):
      self._state_file(old).unlink(missing_ok=True)

  def state(self) -> bytes | None:
    """The state of the last commit.

    Raises:
      DamagedError: if its file is missing or altered.
    """
    return self._read_state(self._header)

  def clear(self) -> None:
    """Forgets the chunks, also on disk, and keeps the room.

    Raises:
      MemoryHomeError: if the disk fails.
    """
    self._header = dataclasses.replace(self._header, extents=(), state=None)
    with self._explained():
      write_header(self._header_path, self._header)
    for state in self._folder.glob(f"{self._state_path.name}-*"):
      state.unlink()
    self._file.restart_checksums()
    super().clear()

  def restart(self, identity: str) -> None:
    """`clear`, for the chunks of another context."""
    self._header = dataclasses.replace(self._header, identity=identity)
    self.clear()

  def close(self, *, delete: bool = False) -> None:
    """Closes the file; removes all files where `delete`."""
    if delete:
      self._header_path.unlink(missing_ok=True)
      for file in self._folder.glob(f"{self._header_path.stem}.*"):
        file.unlink()
    self._file.close()

  @property
  def _file(self) -> FileStore:
    assert isinstance(self._store, FileStore)
    return self._store

  def _take_up(self) -> None:
    """Verified chunks of the last commit, or none and the reason."""
    there = self._found or self._header_path.exists()
    try:
      header = self._verified() if there else self._header
    except (DamagedError, EOFError) as error:
      self.notice = f"{self._data_path}: {error}; the memory is built anew"
      header = self._header
    if not header.extents:
      self._start_anew()
    self._header, self.num_chunks = header, header.num_chunks
    for start in range(0, self.num_chunks, _FILL_BLOCK):
      stop = min(start + _FILL_BLOCK, self.num_chunks)
      if self._device_landmarks is not None:
        self._show_device(self._file.landmarks(start, stop), start)

  def _start_anew(self) -> None:
    """Takes the room; a header says so only once it is there."""
    self._header_path.unlink(missing_ok=True)
    self._file.allocate()
    try:
      self.clear()
    except MemoryHomeError:
      self._data_path.unlink(missing_ok=True)
      raise

  @contextlib.contextmanager
  def _explained(self) -> Iterator[None]:
    """What the system says, as a `MemoryHomeError`."""
    try:
      yield
    except OSError as error:
      raise MemoryHomeError(
        f"disk memory {self._folder}: {error.strerror}"
      ) from error

  def _verified(self) -> Header:
    """The header, after reading all that it speaks of.

    Raises:
      DamagedError: if anything differs from what was committed.
      EOFError: if the file is too short.
    """
    header = read_header(self._header_path)
    if not header.same_contents(self._header):
      raise DamagedError("it holds the chunks of another context or model")
    if not self._file.is_whole():
      raise DamagedError("the file is not as long as it was made")
    for extent in header.extents:
      found = self._file.verify(extent.start, extent.stop)
      if found != (extent.landmarks, extent.records):
        raise DamagedError(
          f"chunks {extent.start} to {extent.stop - 1} were altered"
        )
    self._read_state(header)
    return header

  def _read_state(self, header: Header) -> bytes | None:
    if header.state is None:
      return None
    try:
      state = self._state_file(header).read_bytes()
    except FileNotFoundError as error:
      raise DamagedError("the state beside the chunks is missing") from error
    if zlib.crc32(state) != header.state:
      raise DamagedError("the state beside the chunks was altered")
    return state

  def _state_file(self, header: Header) -> pathlib.Path:
    """One per commit, which so never overwrites the one in force."""
    name = f"{self._state_path.name}-{header.num_chunks}-{header.state}"
    return self._folder / name
