"""The header of a memory file: what it holds, and how much of it is durable.

Written to a temporary file, synced and renamed, always after the data that it
speaks of. So whatever the moment of a crash, the header in place describes data
that reached the disk.
"""

import dataclasses
import json
import os
import pathlib
import zlib
from typing import Any

FORMAT_VERSION = 1


class DamagedError(ValueError):
  """A memory on disk that cannot be taken up; the message says why."""


@dataclasses.dataclass(frozen=True)
class Extent:
  """Chunks `start .. stop - 1`, made durable together, and their CRC-32s."""

  start: int
  stop: int
  landmarks: int
  records: int


@dataclasses.dataclass(frozen=True)
class Header:
  """What a memory file holds.

  Attributes:
    identity: whose chunks these are (model and context), as the caller says.
    layout: fields of `layout.Layout`.
    capacity: chunks there is room for.
    extents: durable chunks from 0 on, without gaps.
    state: CRC-32 of the state beside the last extent; None without one.
    version: of this format.
  """

  identity: str
  layout: dict[str, Any]
  capacity: int
  extents: tuple[Extent, ...] = ()
  state: int | None = None
  version: int = FORMAT_VERSION

  @property
  def num_chunks(self) -> int:
    """Durable chunks."""
    return self.extents[-1].stop if self.extents else 0

  def same_contents(self, other: "Header") -> bool:
    """Whether both are about the same chunks, durable or not."""
    blank = {"extents": (), "state": None}
    mine = dataclasses.replace(self, **blank)
    return mine == dataclasses.replace(other, **blank)


def write_header(path: pathlib.Path, header: Header) -> None:
  """Replaces the header in one step."""
  body = dataclasses.asdict(header)
  body["crc32"] = _body_sum(body)
  write_atomic(path, json.dumps(body, indent=1).encode())


def read_header(path: pathlib.Path) -> Header:
  """The header.

  Raises:
    DamagedError: if it is missing, unreadable, altered or of another version.
  """
  try:
    body = json.loads(path.read_bytes())
    recorded = body.pop("crc32")
    if body["version"] != FORMAT_VERSION:
      raise DamagedError(f"format version {body['version']} is not known")
    if recorded != _body_sum(body):
      raise DamagedError("the header was altered")
    body["extents"] = tuple(Extent(**e) for e in body["extents"])
    return Header(**body)
  except FileNotFoundError as error:
    raise DamagedError("the header is missing") from error
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    if isinstance(error, DamagedError):
      raise
    raise DamagedError("the header cannot be read") from error


def write_atomic(path: pathlib.Path, data: bytes) -> None:
  """Either the old file or the new one is there, whatever happens."""
  part = path.with_name(path.name + ".part")
  with open(part, "wb") as file:
    file.write(data)
    file.flush()
    os.fsync(file.fileno())
  os.replace(part, path)
  sync_folder(path.parent)


def sync_folder(folder: pathlib.Path) -> None:
  """Makes renamed and removed names durable."""
  fd = os.open(folder, os.O_RDONLY)
  try:
    os.fsync(fd)
  finally:
    os.close(fd)


def _body_sum(body: dict[str, Any]) -> int:
  return zlib.crc32(json.dumps(body, sort_keys=True).encode())
