"""Rows, and ways to look at the shards made of them."""

import collections
import json

import pytest

from hsa_jax.data import shard, shards
from hsa_jax.data.progress import Progress
from hsa_jax.data.shards import build_shards
from hsa_jax.data.sources import Shares, source_of_rows
from hsa_jax.data.tokenizer import load_tokenizer

from .helpers import make_text

BYTES = load_tokenizer("byte")
ROWS = Shares(valid=0.2, test=0.3)
NUM_ROWS = 120


def write_rows(folder):
  """Three files of rows, one of them a copy, as glob patterns."""
  lines = [json.dumps({"text": make_text(40 + i, i)}) for i in range(NUM_ROWS)]
  (folder / "a.jsonl").write_text("\n".join(lines[:70]) + "\n")
  (folder / "b.jsonl").write_text("\n".join(lines[70:]))
  (folder / "c.jsonl").write_text("\n".join(lines[70:]))
  return [str(folder / "*.jsonl")]


def source_of(rows, size=900, **settings):
  return source_of_rows(
    rows, field="text", shard_bytes=size, **{"shares": ROWS, **settings}
  )


def contents(folder):
  """Content of every file, by name."""
  return {
    p.relative_to(folder).as_posix(): p.read_bytes()
    for p in folder.rglob("*")
    if p.is_file()
  }


def flip(file):
  data = bytearray(file.read_bytes())
  data[len(data) // 2] ^= 1
  file.write_bytes(data)


class Counting(Progress):
  """Counts shards in place of printing."""

  def __init__(self):
    super().__init__(0)
    self.shards = collections.Counter()

  def made(self, num_bytes):
    self.shards["made"] += 1

  def kept(self, num_bytes):
    self.shards["kept"] += 1


class Stop(BaseException):
  """Ends a run where a kill would."""


def kill_after(count, source, folder, monkeypatch):
  with monkeypatch.context() as patch:
    left = iter(range(count))

    def make(*args):
      if next(left, None) is None:
        raise Stop
      return shard.make_shard(*args)

    patch.setattr(shards, "make_shard", make)
    with pytest.raises(Stop):
      build_shards(source, BYTES, folder)
