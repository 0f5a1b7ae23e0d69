import collections
import errno
import hashlib
import json
import os

import numpy as np
import pytest
from etils import epath
from etils.epath import backend
from fsspec.implementations.memory import MemoryFileSystem

from hsa_jax.config import (
  Config,
  DataConfig,
  SourceConfig,
  StageConfig,
  Task,
  TrainConfig,
)
from hsa_jax.data import shard, shards
from hsa_jax.data.copying import copy_store
from hsa_jax.data.corpora import SPLITS, documents
from hsa_jax.data.errors import CorpusError, StoreError
from hsa_jax.data.pipeline import TrainData
from hsa_jax.data.progress import Progress
from hsa_jax.data.shards import build_shards
from hsa_jax.data.sources import Shares, source_of_corpus, source_of_rows
from hsa_jax.data.store import Existing, TokenStore, build_store
from hsa_jax.data.tokenizer import ByteTokenizer, load_tokenizer
from hsa_jax.data.train_bpe import train_bpe

from .helpers import make_text

BYTES = load_tokenizer("byte")
ROWS = Shares(valid=0.2, test=0.3)
NUM_ROWS = 120


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
  folder = tmp_path_factory.mktemp("texts")
  for i in range(30):
    (folder / f"{i:02}.txt").write_text(make_text(200 + 37 * i, i))
  return documents("files", files=[str(folder / "*.txt")])


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
  """Three files of rows, one of them a copy, as glob patterns."""
  folder = tmp_path_factory.mktemp("rows")
  lines = [json.dumps({"text": make_text(40 + i, i)}) for i in range(NUM_ROWS)]
  (folder / "a.jsonl").write_text("\n".join(lines[:70]) + "\n")
  (folder / "b.jsonl").write_text("\n".join(lines[70:]))
  (folder / "c.jsonl").write_text("\n".join(lines[70:]))
  return [str(folder / "*.jsonl")]


def _rows(rows, size=900, **settings):
  return source_of_rows(
    rows, field="text", shard_bytes=size, **{"shares": ROWS, **settings}
  )


def _bytes(folder):
  """Content of every file, by name."""
  return {
    p.relative_to(folder).as_posix(): p.read_bytes()
    for p in folder.rglob("*")
    if p.is_file()
  }


def _texts(store, split):
  return [BYTES.decode(ids) for ids in store.documents(split)]


class Counting(Progress):
  """Counts shards in place of printing."""

  def __init__(self):
    super().__init__(0)
    self.shards = collections.Counter()

  def made(self, num_bytes):
    self.shards["made"] += 1

  def kept(self, num_bytes):
    self.shards["kept"] += 1


# --- What is in a store ------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3_000, 10**9])
def test_splits_are_those_of_one_file(texts, tmp_path, size):
  one = build_store(texts, BYTES, tmp_path / "one")
  many = build_shards(source_of_corpus(texts, size), BYTES, tmp_path / "many")
  assert many.index["corpus"] == one.index["corpus"]
  for split in SPLITS:
    np.testing.assert_array_equal(
      np.asarray(many.split(split)), one.split(split)
    )
    assert _texts(many, split) == _texts(one, split)
    assert many.num_tokens(split) == one.num_tokens(split)
    assert many.bytes_per_token(split) == one.bytes_per_token(split)


def test_every_row_is_in_the_store_once(rows, tmp_path):
  store = build_shards(_rows(rows), BYTES, tmp_path / "s")
  found = [text for split in SPLITS for text in _texts(store, split)]
  assert sorted(found) == sorted(make_text(40 + i, i) for i in range(NUM_ROWS))
  assert len(store.index["shards"]) > 5
  for split in SPLITS:
    ids = np.asarray(store.split(split))
    assert (ids == BYTES.eos_id).sum() == len(_texts(store, split))
    assert store.index["splits"][split]["documents"] > 10


def test_a_split_is_a_function_of_the_text(rows, tmp_path):
  """The same texts in another order and other files go the same way."""
  lines = [json.dumps({"text": make_text(40 + i, i)}) for i in range(NUM_ROWS)]
  (tmp_path / "all.jsonl").write_text("\n".join(reversed(lines)))
  other = _rows([str(tmp_path / "all.jsonl")], size=10**9)
  one = build_shards(_rows(rows), BYTES, tmp_path / "one")
  two = build_shards(other, BYTES, tmp_path / "two")
  for split in SPLITS:
    assert sorted(_texts(one, split)) == sorted(_texts(two, split))
  assert one.index["corpus"]["fingerprint"] != other.fingerprint


def test_held_out_rows_leave_the_training_text(rows, tmp_path):
  held = [make_text(40 + i, i) for i in (3, 80, 5)]
  for name, part in (("v", held[:2]), ("t", held[2:])):
    lines = [json.dumps({"text": text}) for text in [*part, f"only {name}"]]
    (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
  source = _rows(
    rows,
    valid_files=[str(tmp_path / "v.jsonl")],
    test_files=[str(tmp_path / "t.jsonl")],
  )
  store = build_shards(source, BYTES, tmp_path / "s")
  assert _texts(store, "valid") == [*held[:2], "only v"]
  assert _texts(store, "test") == [*held[2:], "only t"]
  train = _texts(store, "train")
  assert len(train) == NUM_ROWS - 3 and not set(train) & set(held)
  assert sum(s["left_out"] for s in store.index["shards"]) == 3


def test_large_vocabulary_takes_four_bytes(rows, tmp_path):
  tokenizer = ByteTokenizer()
  tokenizer.vocab_size, tokenizer.eos_id = 70_001, 70_000
  store = build_shards(_rows(rows), tokenizer, tmp_path / "s")
  assert store.split("train").dtype == np.uint32
  assert store.split("train")[-1] == 70_000


def test_batches_are_those_of_one_file(texts, tmp_path):
  """Mixtures by weight, and every host's share of them."""
  sources = (
    SourceConfig(weight=2.0),
    SourceConfig(task=Task.NIAH),
    SourceConfig(task=Task.COPY),
  )
  stages = (
    StageConfig("a", 4, 400, 8, sources),
    StageConfig("b", 2, 20_000, 4, sources),  # longer than the text
  )
  cfg = Config(data=DataConfig(stages=stages), train=TrainConfig(seed=3))
  one = build_store(texts, BYTES, tmp_path / "one")
  build_shards(source_of_corpus(texts, 900), BYTES, tmp_path / "many")
  many = TokenStore.open(tmp_path / "many")
  left, right = TrainData(cfg, one, BYTES), TrainData(cfg, many, BYTES)
  for step in range(6):
    for host in range(4):
      place = {"process_index": host, "process_count": 4}
      for a, b in zip(
        left.batch(step, **place), right.batch(step, **place), strict=True
      ):
        np.testing.assert_array_equal(a, b)
  for a, b in zip(
    left.validation_batches(2), right.validation_batches(2), strict=True
  ):
    np.testing.assert_array_equal(a.tokens, b.tokens)


# --- How it is made ----------------------------------------------------------


def test_bytes_do_not_depend_on_the_processes(rows, tmp_path):
  build_shards(_rows(rows), BYTES, tmp_path / "one", workers=1)
  build_shards(_rows(rows), BYTES, tmp_path / "three", workers=3)
  assert _bytes(tmp_path / "one") == _bytes(tmp_path / "three")
  assert not (tmp_path / "one" / "progress").exists()


def test_any_tokenizer_goes_to_the_processes(rows, tmp_path):
  file = tmp_path / "t.json"
  file.write_text(train_bpe([make_text(4_000, 0)], vocab_size=300))
  tokenizer = load_tokenizer(f"hf:{file}")
  one = build_shards(_rows(rows), tokenizer, tmp_path / "one", workers=1)
  build_shards(_rows(rows), tokenizer, tmp_path / "two", workers=2)
  assert _bytes(tmp_path / "one") == _bytes(tmp_path / "two")
  found = {
    tokenizer.decode(ids) for split in SPLITS for ids in one.documents(split)
  }
  assert found == {make_text(40 + i, i) for i in range(NUM_ROWS)}
  with pytest.raises(StoreError, match="made by tokenizer 'hf:"):
    TokenStore.open(tmp_path / "one", BYTES.fingerprint)


class Stop(BaseException):
  """Ends a run where a kill would."""


def _killed_after(count, source, folder, monkeypatch):
  with monkeypatch.context() as patch:
    left = iter(range(count))

    def make(*args):
      if next(left, None) is None:
        raise Stop
      return shard.make_shard(*args)

    patch.setattr(shards, "make_shard", make)
    with pytest.raises(Stop):
      build_shards(source, BYTES, folder)


def test_a_second_run_goes_on_where_the_first_was_killed(
  rows, tmp_path, monkeypatch
):
  source = _rows(rows)
  _killed_after(4, source, tmp_path / "s", monkeypatch)
  with pytest.raises(StoreError, match="not finished"):
    TokenStore.open(tmp_path / "s")
  progress = Counting()
  build_shards(source, BYTES, tmp_path / "s", progress=progress)
  assert progress.shards == {"kept": 4, "made": len(source.parts) - 4}
  build_shards(source, BYTES, tmp_path / "whole")
  assert _bytes(tmp_path / "s") == _bytes(tmp_path / "whole")


def _flip(file):
  data = bytearray(file.read_bytes())
  data[len(data) // 2] ^= 1
  file.write_bytes(data)


DAMAGES = {
  "tokens": lambda f: _flip(f / "00001.bin"),
  "ends": lambda f: _flip(f / "00001.ends"),
  "gone": lambda f: (f / "00001.bin").unlink(),
  "torn record": lambda f: (f / "progress" / "00001.json").write_text("{"),
  "half a file": lambda f: (f / "00001.bin.tmp-99").write_bytes(b"12"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_only_whole_shards_are_taken_up(rows, tmp_path, monkeypatch, damage):
  source = _rows(rows)
  _killed_after(4, source, tmp_path / "s", monkeypatch)
  DAMAGES[damage](tmp_path / "s")
  progress = Counting()
  build_shards(source, BYTES, tmp_path / "s", progress=progress)
  assert progress.shards["kept"] == (4 if damage == "half a file" else 3)
  build_shards(source, BYTES, tmp_path / "whole")
  assert _bytes(tmp_path / "s") == _bytes(tmp_path / "whole")


def test_shards_of_something_else_are_not_taken_up(rows, tmp_path, monkeypatch):
  _killed_after(2, _rows(rows), tmp_path / "s", monkeypatch)
  for source, other in (
    (_rows(rows, size=800), "other shards"),
    (_rows(rows, shares=Shares(0.1, 0.1)), "other corpus"),
  ):
    with pytest.raises(StoreError, match=f"{other}.*--replace"):
      build_shards(source, BYTES, tmp_path / "s")
  tokenizer = ByteTokenizer()
  tokenizer.fingerprint = "0" * 64
  with pytest.raises(StoreError, match="other tokenizer"):
    build_shards(_rows(rows), tokenizer, tmp_path / "s")
  replaced = build_shards(
    _rows(rows, size=800), BYTES, tmp_path / "s", existing=Existing.REPLACE
  )
  build_shards(_rows(rows, size=800), BYTES, tmp_path / "whole")
  assert _bytes(replaced.path) == _bytes(tmp_path / "whole")


@pytest.mark.parametrize("existing", list(Existing))
def test_a_folder_of_something_else_is_never_touched(rows, tmp_path, existing):
  (tmp_path / "index.json").write_text("{}")
  with pytest.raises(StoreError, match="not a token store"):
    build_shards(_rows(rows), BYTES, tmp_path, existing=existing)
  assert _bytes(tmp_path) == {"index.json": b"{}"}


def test_a_finished_store_is_not_overwritten(rows, tmp_path):
  build_shards(_rows(rows), BYTES, tmp_path / "s")
  with pytest.raises(StoreError, match="already holds"):
    build_shards(_rows(rows), BYTES, tmp_path / "s")


class Dying(ByteTokenizer):
  """What running out of memory looks like to the other processes."""

  def encode(self, text):
    os._exit(9)


def test_a_dead_process_is_told(rows, tmp_path):
  with pytest.raises(StoreError, match=r"a process died.*fewer --workers"):
    build_shards(_rows(rows), Dying(), tmp_path / "s", workers=2)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bad_line_is_named(rows, tmp_path, workers):
  bad = tmp_path / "bad.jsonl"
  bad.write_text('{"text": "a"}\n' * 50 + '{"text": "a"\n')
  with pytest.raises(CorpusError, match=r"bad\.jsonl, line 51: not JSON"):
    build_shards(
      _rows([*rows, str(bad)]), BYTES, tmp_path / "s", workers=workers
    )


def test_a_full_disk_is_named_and_shards_are_kept(rows, tmp_path, monkeypatch):
  class Full(shard._Hashing):
    def write(self, data):
      if "00003.bin" in self._file.name:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
      super().write(data)

  with monkeypatch.context() as patch:
    patch.setattr(shard, "_Hashing", Full)
    with pytest.raises(
      StoreError, match=r"00003\.bin: cannot be written: No space.*GB free"
    ):
      build_shards(_rows(rows), BYTES, tmp_path / "s")
  assert not list((tmp_path / "s").glob("*.tmp-*"))
  progress = Counting()
  build_shards(_rows(rows), BYTES, tmp_path / "s", progress=progress)
  assert progress.shards["kept"] == 3


def test_an_empty_split_is_an_error(rows, tmp_path):
  with pytest.raises(StoreError, match="split 'test': raise --test_share"):
    build_shards(_rows(rows, shares=Shares(0.2, 0.0)), BYTES, tmp_path / "s")


def test_object_storage_that_cannot_be_reached_is_named(rows):
  with pytest.raises(StoreError, match=r"gs://.*gcsfs"):
    build_shards(_rows(rows), BYTES, "gs://bucket/store")
  with pytest.raises(StoreError, match="no such kind of storage"):
    build_shards(_rows(rows), BYTES, "ftp://host/store")
  with pytest.raises(StoreError, match="--copy_from=gs://bucket/store"):
    TokenStore.open("gs://bucket/store")


class Bucket(MemoryFileSystem):
  """Objects by name, without folders and without renaming."""

  cachable = False
  store = {}
  pseudo_dirs = [""]

  @classmethod
  def _strip_protocol(cls, path):
    return "/" + path.removeprefix("gs://").strip("/")

  def mv(self, *args, **kwargs):
    raise NotImplementedError


@pytest.fixture
def bucket(monkeypatch):
  found = Bucket()
  found.store.clear()
  patched = backend._FileSystemSpecBackend
  monkeypatch.setattr(patched, "fs", lambda self, path: found)
  return found


def test_object_storage(rows, tmp_path, monkeypatch, bucket):
  """Written, killed, resumed and copied; the same bytes as on a disk."""
  source, url = _rows(rows), "gs://bucket/deep/store"
  _killed_after(4, source, url, monkeypatch)
  assert "/bucket/deep/store/progress/00003.json" in bucket.store
  progress = Counting()
  store = build_shards(source, BYTES, url, progress=progress)
  assert progress.shards["kept"] == 4
  build_shards(source, BYTES, tmp_path / "s")
  assert store.index == TokenStore.open(tmp_path / "s").index
  names = {name.rpartition("/")[2] for name in bucket.store}
  assert names == set(_bytes(tmp_path / "s"))
  copy_store(url, tmp_path / "c")
  assert _bytes(tmp_path / "c") == _bytes(tmp_path / "s")
  with pytest.raises(StoreError, match="already holds"):
    build_shards(source, BYTES, url)


def test_a_path_object_is_a_path(rows, tmp_path):
  store = build_shards(_rows(rows), BYTES, epath.Path(tmp_path) / "s")
  assert TokenStore.open(epath.Path(tmp_path) / "s").index == store.index


# --- What is checked ---------------------------------------------------------


@pytest.mark.parametrize("name", ["00002.bin", "00002.ends"])
def test_one_flipped_bit_is_found_and_named(rows, tmp_path, name):
  build_shards(_rows(rows), BYTES, tmp_path / "s")
  _flip(tmp_path / "s" / name)
  with pytest.raises(StoreError, match=rf"{name}: SHA-256 .* corrupt"):
    TokenStore.open(tmp_path / "s")
  (tmp_path / "s" / name).write_bytes(b"")
  with pytest.raises(StoreError, match=rf"{name}: has 0 bytes .* truncated"):
    TokenStore.open(tmp_path / "s")


def test_the_header_is_checked(rows, tmp_path):
  build_shards(_rows(rows), BYTES, tmp_path / "s")
  file = tmp_path / "s" / "index.json"
  file.write_text(file.read_text().replace('"start": 0', '"start": 1', 1))
  with pytest.raises(StoreError, match="the index is corrupt"):
    TokenStore.open(tmp_path / "s")


def test_hashes_are_those_of_the_files(rows, tmp_path):
  store = build_shards(_rows(rows), BYTES, tmp_path / "s")
  for entry in store.index["shards"]:
    data = (tmp_path / "s" / entry["name"]).read_bytes()
    assert hashlib.sha256(data).hexdigest() == entry["sha256"]
    assert len(data) == 2 * entry["num_tokens"]


# --- Copies ------------------------------------------------------------------


def test_a_copy_is_equal_and_goes_on(rows, tmp_path):
  build_shards(_rows(rows), BYTES, tmp_path / "s")
  copy_store(tmp_path / "s", tmp_path / "c")
  assert _bytes(tmp_path / "c") == _bytes(tmp_path / "s")
  _flip(tmp_path / "c" / "00001.bin")
  (tmp_path / "c" / "index.json").unlink()
  progress = Counting()
  copy_store(tmp_path / "s", tmp_path / "c", progress=progress)
  assert progress.shards["made"] == 1
  assert _bytes(tmp_path / "c") == _bytes(tmp_path / "s")


def test_a_damaged_file_is_not_copied(rows, tmp_path):
  build_shards(_rows(rows), BYTES, tmp_path / "s")
  _flip(tmp_path / "s" / "00001.bin")
  with pytest.raises(StoreError, match=r"00001\.bin: its SHA-256 is not that"):
    copy_store(tmp_path / "s", tmp_path / "c")
  assert not (tmp_path / "c" / "index.json").exists()


def test_a_copy_mixes_nothing(rows, texts, tmp_path):
  build_shards(_rows(rows), BYTES, tmp_path / "s")
  build_shards(source_of_corpus(texts, 10**9), BYTES, tmp_path / "t")
  with pytest.raises(StoreError, match="holds another token store"):
    copy_store(tmp_path / "s", tmp_path / "t")
  (tmp_path / "u").mkdir()
  (tmp_path / "u" / "thesis.txt").write_text("years of work")
  with pytest.raises(StoreError, match=r"holds 'thesis\.txt'"):
    copy_store(tmp_path / "s", tmp_path / "u")
