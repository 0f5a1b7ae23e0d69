"""Tokens on disk: one flat file or several, memory-mapped, and an index.

    STORE/tokens.bin    uint16 or uint32, every document followed by eos;
                        splits are contiguous, in the order train, valid, test
    STORE/index.json    what the tokens are, and the hash of each file

In the place of `tokens.bin` there may be shards, `00000.bin` and so on, each of
the same form (`hsa_jax/data/shards.py`). A split is then the stretches of all
shards, one after another.

One file is written to a hidden folder and renamed at the end; an index is
written last in any case, so a folder with an index is always complete.
"""

import enum
import filecmp
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np

from hsa_jax.data.corpora import SPLITS, Corpus, Document, file_digest
from hsa_jax.data.errors import StoreError
from hsa_jax.data.index import (
  INDEX,
  ONE_FILE,
  TOKENS,
  ends_name,
  files,
  index_bytes,
  read_index,
  remake,
  stretches,
  token_type,
  tokenizer_entry,
)
from hsa_jax.data.token_view import TokenView
from hsa_jax.data.tokenizer import Tokenizer

# Hashing at most this much at every opening costs less than a second.
_HASH_LIMIT_BYTES = 1 << 30


class Existing(enum.StrEnum):
  """What to do when the folder already holds a token store."""

  REFUSE = "refuse"
  REPLACE = "replace"


class TokenStore:
  """Read-only view of a store; cheap to pickle, opened again lazily."""

  def __init__(self, path: Path, index: dict[str, Any]):
    """Use `TokenStore.open`, which checks what it opens."""
    self.path = path
    self.index = index
    self._splits: dict[str, np.ndarray] = {}

  @classmethod
  def open(
    cls, path: str | os.PathLike, expected_fingerprint: str | None = None
  ) -> "TokenStore":
    """Opens a store after checking it.

    Args:
      path: folder of the store.
      expected_fingerprint: of the tokenizer that will read the ids; None
        skips that check.

    Raises:
      StoreError: no store there, unreadable index, wrong size or hash of the
        token file, or another tokenizer.
    """
    if "://" in str(path):
      raise StoreError(
        f"{path}: tokens are read through a memory map, which needs a local"
        f" folder; copy it: python -m hsa_jax.cli.prepare --copy_from={path}"
        " --out=DIR"
      )
    folder = Path(path)
    store = cls(folder, read_index(folder))
    store._check_tokenizer(expected_fingerprint)
    store._check_sizes()
    if sum(f.num_bytes for f in files(store.index)) <= _HASH_LIMIT_BYTES:
      store.verify()
    return store

  @classmethod
  def describe(
    cls, folder: os.PathLike, expected_fingerprint: str | None = None
  ) -> "TokenStore":
    """A store on object storage: its header, without its tokens.

    Args:
      folder: a path object that opens files there, as of `etils.epath`.
      expected_fingerprint: of the tokenizer; None skips that check.

    Raises:
      StoreError: unreadable index, or another tokenizer.
    """
    path = cast(Path, folder)
    store = cls(path, read_index(path))
    store._check_tokenizer(expected_fingerprint)
    return store

  @property
  def fingerprint(self) -> str:
    """Fingerprint of the tokenizer that made the ids."""
    return self.index["tokenizer"]["fingerprint"]

  @property
  def tokenizer_spec(self) -> str:
    """Spec of the tokenizer that made the ids."""
    return self.index["tokenizer"]["spec"]

  @property
  def vocab_size(self) -> int:
    """Number of ids of the tokenizer."""
    return self.index["tokenizer"]["vocab_size"]

  def split(self, name: str) -> np.ndarray:
    """All tokens of a split, memory-mapped, `uint16[n]` or `uint32[n]`.

    Over several shards it is a `TokenView`, which answers like an array.

    Raises:
      StoreError: no such split.
    """
    if name not in self._splits:
      self._entry(name)
      self._splits[name] = self._view(name)
    return self._splits[name]

  def documents(self, split: str) -> Iterator[np.ndarray]:
    """Tokens of each document of a split, without eos.

    Raises:
      StoreError: no such split.
    """
    self._entry(split)
    for stretch in stretches(self.index, split):
      tokens, start = self._map(stretch.file), stretch.start
      first = stretch.first_document
      ends = self._ends(stretch.file)[first : first + stretch.documents]
      for end in ends.tolist():
        yield tokens[start : end - 1]
        start = end

  def num_tokens(self, split: str) -> int:
    """Tokens of a split, one eos per document included."""
    return self._entry(split)["length"]

  def bytes_per_token(self, split: str) -> float:
    """UTF-8 bytes of text per token: nats / this / ln 2 = bits per byte."""
    entry = self._entry(split)
    return entry["text_bytes"] / entry["length"]

  def verify(self) -> None:
    """Compares the SHA-256 of every file; about 1 s per GB.

    Raises:
      StoreError: a file is not the one that was written.
    """
    for file in files(self.index):
      found = file_digest(self.path / file.name)
      if found != file.sha256:
        raise StoreError(
          f"{self.path / file.name}: SHA-256 is {found[:16]}..., the index says"
          f" {file.sha256[:16]}...: the file is corrupt; {remake(self.path)}"
        )

  def _view(self, name: str) -> np.ndarray:
    pieces = stretches(self.index, name)
    if len(pieces) == 1:
      start = pieces[0].start
      return self._map(pieces[0].file)[start : start + pieces[0].length]
    view = TokenView(pieces, self._map, np.dtype(self.index["dtype"]))
    return cast(np.ndarray, view)

  def _map(self, file: str) -> np.ndarray:
    mapped = np.memmap(self.path / file, self.index["dtype"], mode="r")
    # Slices of the plain view cost a third of slices of a memmap.
    return mapped.view(np.ndarray)

  def _ends(self, file: str) -> np.ndarray:
    """End of each document of a token file, past its eos."""
    if self.index["version"] == ONE_FILE:
      entries = self.index["documents"]
      return np.array([e["start"] + e["length"] + 1 for e in entries], np.int64)
    return np.fromfile(self.path / ends_name(file), "<u8")

  def _entry(self, name: str) -> dict[str, int]:
    splits = self.index["splits"]
    if name not in splits:
      names = ", ".join(splits)
      raise StoreError(f"{self.path}: no split {name!r}, only {names}")
    return splits[name]

  def _check_sizes(self) -> None:
    for wanted in files(self.index):
      file, expected = self.path / wanted.name, wanted.num_bytes
      if not file.is_file():
        raise StoreError(f"{file}: missing; {remake(self.path)}")
      size = file.stat().st_size
      if size != expected:
        raise StoreError(
          f"{file}: has {size} bytes instead of {expected}: the file is"
          f" {'truncated' if size < expected else 'too long'};"
          f" {remake(self.path)}"
        )

  def _check_tokenizer(self, expected: str | None) -> None:
    if expected is not None and expected != self.fingerprint:
      spec = self.tokenizer_spec
      then = " with the file of that time" if spec.startswith("hf:") else ""
      raise StoreError(
        f"{self.path}: made by tokenizer {spec!r} (fingerprint"
        f" {self.fingerprint[:12]}), this run uses another ({expected[:12]});"
        f" set data.tokenizer = {spec!r}{then}, or data.store to another folder"
      )

  def __getstate__(self) -> dict[str, Any]:
    return {"path": self.path, "index": self.index, "_splits": {}}


def build_store(
  corpus: Corpus,
  tokenizer: Tokenizer,
  path: str | os.PathLike,
  *,
  existing: Existing = Existing.REFUSE,
  progress: Callable[[int], None] = lambda num_bytes: None,
) -> TokenStore:
  """Tokenizes a corpus into a folder, all or nothing.

  Args:
    corpus: documents; memory holds one of them at a time.
    tokenizer: ids must fit its `vocab_size`.
    path: folder to make; its parents are made too.
    existing: whether a store already there may be replaced.
    progress: told the source bytes of each document when it is done.

  Raises:
    StoreError: the folder is taken, or cannot be written.
  """
  target = Path(path).absolute()
  _check_target(target, existing)
  temporary = target.parent / f".{target.name}.tmp-{uuid.uuid4().hex[:8]}"
  try:
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    _write(corpus, tokenizer, temporary, progress)
    _move(temporary, target, existing)
  except OSError as e:
    raise StoreError(f"{target}: cannot be written: {e.strerror or e}") from e
  finally:
    shutil.rmtree(temporary, ignore_errors=True)
  return TokenStore.open(path, tokenizer.fingerprint)


def _check_target(target: Path, existing: Existing) -> None:
  if not target.exists() or (target.is_dir() and not any(target.iterdir())):
    return
  if not (target / INDEX).is_file():
    raise StoreError(
      f"{target}: exists and is not a token store; choose another folder"
    )
  if existing is Existing.REFUSE:
    raise StoreError(
      f"{target}: already holds a token store; delete it first, or choose"
      " another folder"
    )


def _move(source: Path, target: Path, existing: Existing) -> None:
  """Puts the finished folder in its place."""
  old = source.with_name(source.name + "-old")
  if existing is Existing.REPLACE and target.exists():
    target.rename(old)
  try:
    source.rename(target)
  except OSError:
    if old.exists():
      old.rename(target)
    # Another process may have made the same store meanwhile: that is fine.
    if not _same_index(source, target):
      raise
  shutil.rmtree(old, ignore_errors=True)


def _same_index(one: Path, other: Path) -> bool:
  files = [folder / INDEX for folder in (one, other)]
  return all(f.is_file() for f in files) and filecmp.cmp(*files, shallow=False)


def _write(
  corpus: Corpus,
  tokenizer: Tokenizer,
  folder: Path,
  progress: Callable[[int], None],
) -> None:
  dtype = token_type(tokenizer)
  digest = hashlib.sha256()
  entries: list[dict[str, Any]] = []
  order = sorted(corpus.documents, key=lambda d: SPLITS.index(d.split))
  with (folder / TOKENS).open("wb") as f:
    for document in order:
      data, entry = _encode(document, tokenizer, dtype)
      start = entries[-1]["start"] + entries[-1]["length"] + 1 if entries else 0
      entries.append({**entry, "start": start})
      digest.update(data)
      f.write(data)
      progress(document.num_bytes)
    f.flush()
    os.fsync(f.fileno())
  index = _index(corpus, tokenizer, dtype, entries, digest.hexdigest())
  with (folder / INDEX).open("wb") as f:
    f.write(index_bytes(index))
    f.flush()
    os.fsync(f.fileno())


def _encode(
  document: Document, tokenizer: Tokenizer, dtype: np.dtype
) -> tuple[bytes, dict[str, Any]]:
  text = document.read()
  ids = tokenizer.encode(text)
  data = np.append(ids, tokenizer.eos_id).astype(dtype).tobytes()
  return data, {
    "title": document.title,
    "split": document.split,
    "length": len(ids),
    "text_bytes": len(text.encode()),
  }


def _index(
  corpus: Corpus,
  tokenizer: Tokenizer,
  dtype: np.dtype,
  entries: list[dict[str, Any]],
  sha256: str,
) -> dict[str, Any]:
  splits, start = {}, 0
  for name in SPLITS:
    mine = [e for e in entries if e["split"] == name]
    length = sum(e["length"] + 1 for e in mine)
    text_bytes = sum(e["text_bytes"] for e in mine)
    splits[name] = {
      "start": start,
      "length": length,
      "text_bytes": text_bytes,
      "documents": len(mine),
    }
    start += length
  return {
    "version": ONE_FILE,
    "dtype": dtype.str,
    "num_tokens": start,
    "sha256": sha256,
    "tokenizer": tokenizer_entry(tokenizer),
    "corpus": {"name": corpus.name, "fingerprint": corpus.fingerprint},
    "splits": splits,
    "documents": entries,
  }
