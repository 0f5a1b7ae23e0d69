"""Folders that may lie on object storage, and files that appear when whole."""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from typing import IO, Any

from etils import epath

from hsa_jax.data.errors import StoreError

KEPT = "finished shards are kept: run the same command again"


def open_folder(path: str | os.PathLike) -> epath.Path:
  """The folder, local or on object storage.

  Raises:
    StoreError: a scheme that is not known or whose package is missing.
  """
  try:
    folder = epath.Path(path)
  except KeyError as e:
    raise StoreError(
      f"{path}: no such kind of storage; give a local folder, or gs://, s3://"
      " or az://"
    ) from e
  if is_local(folder):
    return epath.Path(os.path.abspath(folder.expanduser()))
  try:
    folder.exists()
  except ImportError as e:
    raise StoreError(
      f"{folder}: {e}; run that with python -m pip, or give a local folder"
    ) from e
  return folder


def is_url(path: str | os.PathLike) -> bool:
  """Whether a path lies on object storage."""
  return "://" in str(path)


def is_local(folder: epath.Path) -> bool:
  """Whether a folder is one of this machine."""
  return not is_url(folder)


def digest_of(file: epath.Path) -> str | None:
  """SHA-256 of a file, in hexadecimal; None if there is none."""
  if not file.exists():
    return None
  digest = hashlib.sha256()
  with file.open("rb") as f:
    while block := f.read(1 << 20):
      digest.update(block)
  return digest.hexdigest()


@contextlib.contextmanager
def whole_file(file: epath.Path) -> Iterator[IO[bytes]]:
  """A new file; a local one has its name only once it is complete.

  An object is there when it is closed, after an error too: what counts is
  written after what it counts on.
  """
  if not is_local(file):
    with file.open("wb") as f:
      yield f
    return
  temporary = file.with_name(f"{file.name}.tmp-{os.getpid()}")
  try:
    with temporary.open("wb") as f:
      yield f
      f.flush()
      os.fsync(f.fileno())
    temporary.replace(file)
  finally:
    temporary.unlink(missing_ok=True)


def write_whole(file: epath.Path, data: bytes) -> None:
  """`whole_file` of some bytes."""
  with whole_file(file) as f:
    f.write(data)


def read_json(file: epath.Path) -> Any:
  """The content; None if the file is missing or was not finished."""
  if not file.exists():
    return None
  try:
    return json.loads(file.read_bytes())
  except ValueError:
    return None


@contextlib.contextmanager
def told_faults(where: str) -> Iterator[None]:
  """Tells what could not be written, and how much room there is."""
  try:
    yield
  except OSError as e:
    free = ""
    with contextlib.suppress(OSError):
      free = f" ({shutil.disk_usage(os.path.dirname(where)).free / 1e9:.1f} GB"
      free += " free there)"
    raise StoreError(
      f"{where}: cannot be written: {e.strerror or e}{free}; {KEPT}"
    ) from e
