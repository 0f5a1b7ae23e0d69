"""Copies a finished store, as from object storage to the disk of a host."""

import hashlib
import os

from etils import epath

from hsa_jax.data.errors import StoreError
from hsa_jax.data.folders import (
  digest_of,
  is_local,
  open_folder,
  told_faults,
  whole_file,
  write_whole,
)
from hsa_jax.data.index import INDEX, File, files, parse_index
from hsa_jax.data.progress import Progress
from hsa_jax.data.store import TokenStore

_BLOCK_BYTES = 8 << 20


def copy_store(
  source: str | os.PathLike,
  target: str | os.PathLike,
  *,
  progress: Progress | None = None,
) -> TokenStore:
  """Copies the files whose hash is not right yet, and the header last.

  Args:
    source: folder of a finished store, local or on object storage.
    target: folder to make or to complete; of either kind.
    progress: told the bytes of each file; its total is set here.

  Raises:
    StoreError: no finished store there, a file that changed on the way, or a
      target that cannot be written or holds something else.
  """
  there, here = open_folder(source), open_folder(target)
  if not (there / INDEX).exists():
    raise StoreError(f"{there}: no finished token store there")
  header = (there / INDEX).read_bytes()
  index = parse_index(header, there)
  wanted = files(index)
  progress = progress or Progress(0)
  progress.expect(sum(file.num_bytes for file in wanted))
  with told_faults(str(here / INDEX)):
    _check_target(here, {INDEX, *(file.name for file in wanted)}, header)
    here.mkdir(parents=True, exist_ok=True)
  for file in wanted:
    _copy(there, here, file, progress)
  write_whole(here / INDEX, header)
  if is_local(here):
    return TokenStore.open(target)
  return TokenStore.describe(here)


def _check_target(folder: epath.Path, names: set[str], header: bytes) -> None:
  """Files of another store, or of something else, are not mixed in."""
  if not folder.exists():
    return
  strange = [p.name for p in folder.iterdir() if _plain(p.name) not in names]
  if strange:
    raise StoreError(
      f"{folder}: holds {min(strange)!r}, which is no part of the store to be"
      " copied; choose another folder"
    )
  if (folder / INDEX).exists() and (folder / INDEX).read_bytes() != header:
    raise StoreError(
      f"{folder}: holds another token store; delete it first, or choose another"
      " folder"
    )


def _plain(name: str) -> str:
  return name.split(".tmp-")[0]


def _copy(
  there: epath.Path, here: epath.Path, file: File, progress: Progress
) -> None:
  with told_faults(str(here / file.name)):
    if digest_of(here / file.name) == file.sha256:
      progress.kept(file.num_bytes)
      return
    digest = hashlib.sha256()
    with (
      (there / file.name).open("rb") as f,
      whole_file(here / file.name) as out,
    ):
      while block := f.read(_BLOCK_BYTES):
        digest.update(block)
        out.write(block)
    if digest.hexdigest() != file.sha256:
      (here / file.name).unlink()
      raise StoreError(
        f"{there / file.name}: its SHA-256 is not that of the header: the file"
        " is corrupt; make the store again"
      )
  progress.made(file.num_bytes)
