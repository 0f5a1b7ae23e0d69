"""The header of a token store: one JSON file with a checksum of its own.

Version 1 describes one file of tokens, version 2 several shards. What readers
ask of either is the same: files with their sizes and hashes, and the stretches
of each split in the order in which they follow one another.
"""

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hsa_jax.data.corpora import SPLITS
from hsa_jax.data.errors import StoreError
from hsa_jax.data.tokenizer import Tokenizer

ONE_FILE, SHARDED = 1, 2  # versions of the header
TOKENS, INDEX = "tokens.bin", "index.json"
PROGRESS, PLAN = "progress", "plan.json"  # of a store that is being made
PREPARE = "python -m hsa_jax.cli.prepare --corpus=... --tokenizer=... --out="


class File(NamedTuple):
  """A file of a store.

  Attributes:
    name: inside the folder.
    num_bytes: its size.
    sha256: of its content, in hexadecimal.
  """

  name: str
  num_bytes: int
  sha256: str


class Stretch(NamedTuple):
  """Tokens of one split that lie together.

  Attributes:
    file: name of the token file.
    start: first token, counted in the file.
    length: tokens, one eos per document included.
    first_document: number of documents in the file before this stretch.
    documents: in this stretch.
  """

  file: str
  start: int
  length: int
  first_document: int
  documents: int


def token_type(tokenizer: Tokenizer) -> np.dtype:
  """Little-endian uint16 where every id fits, else uint32."""
  return np.dtype("<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4")


def tokenizer_entry(tokenizer: Tokenizer) -> dict[str, Any]:
  """What a header says about the tokenizer."""
  return {
    "spec": tokenizer.spec,
    "fingerprint": tokenizer.fingerprint,
    "vocab_size": tokenizer.vocab_size,
    "eos_id": tokenizer.eos_id,
  }


def files(index: dict[str, Any]) -> list[File]:
  """All files beside the header."""
  width = np.dtype(index["dtype"]).itemsize
  if index["version"] == ONE_FILE:
    return [File(TOKENS, index["num_tokens"] * width, index["sha256"])]
  found = []
  for shard in index["shards"]:
    name, count = shard["name"], shard["documents"]
    size = shard["num_tokens"] * width
    found += [
      File(name, size, shard["sha256"]),
      File(ends_name(name), count * 8, shard["ends_sha256"]),
    ]
  return found


def ends_name(shard: str) -> str:
  """File of the document ends that belongs to a shard of tokens."""
  return shard.removesuffix(".bin") + ".ends"


def stretches(index: dict[str, Any], split: str) -> list[Stretch]:
  """Where the tokens of a split lie, in order; empty ones are left out."""
  if index["version"] == ONE_FILE:
    shards = [{"name": TOKENS, "splits": index["splits"]}]
  else:
    shards = index["shards"]
  found = []
  for shard in shards:
    before = 0
    for name in SPLITS:
      entry = shard["splits"][name]
      if name == split and entry["length"]:
        place = entry["start"], entry["length"], before, entry["documents"]
        found.append(Stretch(shard["name"], *place))
      before += entry["documents"]
  return found


def read_index(folder: Path) -> dict[str, Any]:
  """The header of a store, its checksum compared and taken out.

  Raises:
    StoreError: none there, damaged, or of a version that is not known.
  """
  file = folder / INDEX
  if not file.exists() and (folder / PROGRESS).exists():
    raise StoreError(
      f"{folder}: the token store is not finished; run the command that makes"
      " it again, it goes on where it was stopped"
    )
  if not file.exists():
    raise StoreError(
      f"{folder}: no token store there ({INDEX} is missing); make it:"
      f" {PREPARE}{folder}"
    )
  return parse_index(file.read_bytes(), folder)


def parse_index(data: bytes, folder: os.PathLike) -> dict[str, Any]:
  """`read_index` of bytes; `folder` is for the messages."""
  file = f"{folder}/{INDEX}"
  index: Any = None
  with contextlib.suppress(ValueError):
    index = json.loads(data)
  if not isinstance(index, dict) or "version" not in index:
    raise StoreError(f"{file}: not an index; {remake(folder)}")
  if index["version"] not in (ONE_FILE, SHARDED):
    raise StoreError(
      f"{file}: version {index['version']}, this program reads {ONE_FILE} and"
      f" {SHARDED}; {remake(folder)}"
    )
  if index.pop("index_sha256", None) != index_digest(index):
    raise StoreError(f"{file}: the index is corrupt; {remake(folder)}")
  return index


def index_digest(index: dict[str, Any]) -> str:
  """Checksum that the header carries of all its other fields."""
  text = json.dumps(index, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()


def index_bytes(index: dict[str, Any]) -> bytes:
  """The header as it is written, with its checksum."""
  whole = {**index, "index_sha256": index_digest(index)}
  return json.dumps(whole, indent=1).encode()


def remake(folder: os.PathLike) -> str:
  """The end of a message about a damaged store."""
  return f"delete the folder and make it again: {PREPARE}{folder}"
