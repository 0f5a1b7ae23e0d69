"""One shard: the tokens of a part of the input, and what is known of them."""

import hashlib
import json
from typing import IO, Any, NamedTuple

import numpy as np
from etils import epath

from hsa_jax.data.corpora import SPLITS
from hsa_jax.data.folders import (
  digest_of,
  read_json,
  told_faults,
  whole_file,
  write_whole,
)
from hsa_jax.data.index import PROGRESS, ends_name, token_type
from hsa_jax.data.readers import Span
from hsa_jax.data.sources import SplitRule
from hsa_jax.data.tokenizer import Tokenizer


class Job(NamedTuple):
  """What every process knows.

  Attributes:
    folder: of the store, a local path or a URL.
    tokenizer: makes the ids.
    rule: chooses splits.
  """

  folder: str
  tokenizer: Tokenizer
  rule: SplitRule


class Made(NamedTuple):
  """A finished shard.

  Attributes:
    entry: what the header says about it.
    num_bytes: of input.
    kept: whether an earlier run had made it.
  """

  entry: dict[str, Any]
  num_bytes: int
  kept: bool


def make_shard(job: Job, number: int, part: tuple[Span, ...]) -> Made:
  """Makes a shard, unless an earlier run has.

  Args:
    job: what all shards share.
    number: of the shard; names its files.
    part: the documents.

  Raises:
    CorpusError: input that cannot be read.
    StoreError: a file that cannot be written.
  """
  folder, name = epath.Path(job.folder), f"{number:05}.bin"
  record = folder / PROGRESS / f"{number:05}.json"
  num_bytes = sum(span.num_bytes for span in part)
  with told_faults(str(folder / name)):
    found = read_json(record)
    if found is not None and _is_whole(folder, found):
      return Made(found, num_bytes, kept=True)
    entry = _write_shard(job, folder, name, part)
    write_whole(record, json.dumps(entry).encode())
  return Made(entry, num_bytes, kept=False)


def _write_shard(
  job: Job, folder: epath.Path, name: str, part: tuple[Span, ...]
) -> dict[str, Any]:
  tokenizer, dtype = job.tokenizer, token_type(job.tokenizer)
  splits = {split: _Section() for split in SPLITS}
  left_out = 0
  with whole_file(folder / name) as f:
    out = _Hashing(f)
    for span in part:
      for text in span.texts():
        data = text.encode()
        split = span.split or job.rule.split(data)
        if not split:
          left_out += 1
          continue
        ids = np.append(tokenizer.encode(text), tokenizer.eos_id)
        section = splits[split]
        section.count(len(ids), len(data))
        tokens = ids.astype(dtype).tobytes()
        # Training text is most of it; what is held out waits in memory.
        if split == SPLITS[0]:
          out.write(tokens)
        else:
          section.waiting.append(tokens)
    for section in splits.values():
      for tokens in section.waiting:
        out.write(tokens)
  ends = np.cumsum([n for s in splits.values() for n in s.lengths], dtype="<u8")
  write_whole(folder / ends_name(name), ends.tobytes())
  return {
    "name": name,
    "num_tokens": int(ends[-1]) if len(ends) else 0,
    "documents": len(ends),
    "left_out": left_out,
    "sha256": out.hexdigest(),
    "ends_sha256": hashlib.sha256(ends.tobytes()).hexdigest(),
    "splits": _split_entries(splits),
  }


class _Section:
  """The documents of one split in a shard."""

  def __init__(self):
    self.lengths: list[int] = []
    self.text_bytes = 0
    self.waiting: list[bytes] = []

  def count(self, length: int, text_bytes: int) -> None:
    self.lengths.append(length)
    self.text_bytes += text_bytes


class _Hashing:
  """Writes, and hashes what is written."""

  def __init__(self, f: IO[bytes]):
    self._file, self._digest = f, hashlib.sha256()

  def write(self, data: bytes) -> None:
    self._digest.update(data)
    self._file.write(data)

  def hexdigest(self) -> str:
    return self._digest.hexdigest()


def _split_entries(splits: dict[str, _Section]) -> dict[str, dict[str, int]]:
  entries, start = {}, 0
  for name, section in splits.items():
    length = sum(section.lengths)
    entries[name] = {
      "start": start,
      "length": length,
      "text_bytes": section.text_bytes,
      "documents": len(section.lengths),
    }
    start += length
  return entries


def _is_whole(folder: epath.Path, entry: dict[str, Any]) -> bool:
  """Whether both files of a shard are those that were written."""
  name = entry["name"]
  wanted = {name: entry["sha256"], ends_name(name): entry["ends_sha256"]}
  return all(digest_of(folder / n) == digest for n, digest in wanted.items())
