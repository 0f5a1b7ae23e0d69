import errno
import json
import os

import numpy as np
import pytest

from hsa_jax.config import (
  Config,
  DataConfig,
  SourceConfig,
  StageConfig,
  Task,
  TrainConfig,
)
from hsa_jax.data import shard
from hsa_jax.data.corpora import SPLITS, documents
from hsa_jax.data.errors import CorpusError, StoreError
from hsa_jax.data.pipeline import TrainData
from hsa_jax.data.shards import build_shards
from hsa_jax.data.sources import Shares, source_of_corpus
from hsa_jax.data.store import Existing, TokenStore, build_store
from hsa_jax.data.tokenizer import ByteTokenizer, load_tokenizer
from hsa_jax.data.train_bpe import train_bpe

from .helpers import make_text
from .shard_helpers import (
  BYTES,
  NUM_ROWS,
  Counting,
  contents,
  flip,
  kill_after,
  source_of,
  write_rows,
)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
  folder = tmp_path_factory.mktemp("texts")
  for i in range(30):
    (folder / f"{i:02}.txt").write_text(make_text(200 + 37 * i, i))
  return documents("files", files=[str(folder / "*.txt")])


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
  return write_rows(tmp_path_factory.mktemp("rows"))


def _texts(store, split):
  return [BYTES.decode(ids) for ids in store.documents(split)]


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
  store = build_shards(source_of(rows), BYTES, tmp_path / "s")
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
  other = source_of([str(tmp_path / "all.jsonl")], size=10**9)
  one = build_shards(source_of(rows), BYTES, tmp_path / "one")
  two = build_shards(other, BYTES, tmp_path / "two")
  for split in SPLITS:
    assert sorted(_texts(one, split)) == sorted(_texts(two, split))
  assert one.index["corpus"]["fingerprint"] != other.fingerprint


def test_held_out_rows_leave_the_training_text(rows, tmp_path):
  held = [make_text(40 + i, i) for i in (3, 80, 5)]
  for name, part in (("v", held[:2]), ("t", held[2:])):
    lines = [json.dumps({"text": text}) for text in [*part, f"only {name}"]]
    (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
  source = source_of(
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
  store = build_shards(source_of(rows), tokenizer, tmp_path / "s")
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

      def share(rows: int, host: int = host) -> range:
        return range(host, rows, 4)

      for a, b in zip(
        left.batch(step, share=share),
        right.batch(step, share=share),
        strict=True,
      ):
        np.testing.assert_array_equal(a, b)
  for a, b in zip(
    left.validation_batches(2), right.validation_batches(2), strict=True
  ):
    np.testing.assert_array_equal(a.tokens, b.tokens)


# --- How it is made ----------------------------------------------------------


def test_bytes_do_not_depend_on_the_processes(rows, tmp_path):
  build_shards(source_of(rows), BYTES, tmp_path / "one", workers=1)
  build_shards(source_of(rows), BYTES, tmp_path / "three", workers=3)
  assert contents(tmp_path / "one") == contents(tmp_path / "three")
  assert not (tmp_path / "one" / "progress").exists()


def test_any_tokenizer_goes_to_the_processes(rows, tmp_path):
  file = tmp_path / "t.json"
  file.write_text(train_bpe([make_text(4_000, 0)], vocab_size=300))
  tokenizer = load_tokenizer(f"hf:{file}")
  one = build_shards(source_of(rows), tokenizer, tmp_path / "one", workers=1)
  build_shards(source_of(rows), tokenizer, tmp_path / "two", workers=2)
  assert contents(tmp_path / "one") == contents(tmp_path / "two")
  found = {
    tokenizer.decode(ids) for split in SPLITS for ids in one.documents(split)
  }
  assert found == {make_text(40 + i, i) for i in range(NUM_ROWS)}
  with pytest.raises(StoreError, match="made by tokenizer 'hf:"):
    TokenStore.open(tmp_path / "one", BYTES.fingerprint)


def test_a_second_run_goes_on_where_the_first_was_killed(
  rows, tmp_path, monkeypatch
):
  source = source_of(rows)
  kill_after(4, source, tmp_path / "s", monkeypatch)
  with pytest.raises(StoreError, match="not finished"):
    TokenStore.open(tmp_path / "s")
  progress = Counting()
  build_shards(source, BYTES, tmp_path / "s", progress=progress)
  assert progress.shards == {"kept": 4, "made": len(source.parts) - 4}
  build_shards(source, BYTES, tmp_path / "whole")
  assert contents(tmp_path / "s") == contents(tmp_path / "whole")


DAMAGES = {
  "tokens": lambda f: flip(f / "00001.bin"),
  "ends": lambda f: flip(f / "00001.ends"),
  "gone": lambda f: (f / "00001.bin").unlink(),
  "torn record": lambda f: (f / "progress" / "00001.json").write_text("{"),
  "half a file": lambda f: (f / "00001.bin.tmp-99").write_bytes(b"12"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_only_whole_shards_are_taken_up(rows, tmp_path, monkeypatch, damage):
  source = source_of(rows)
  kill_after(4, source, tmp_path / "s", monkeypatch)
  DAMAGES[damage](tmp_path / "s")
  progress = Counting()
  build_shards(source, BYTES, tmp_path / "s", progress=progress)
  assert progress.shards["kept"] == (4 if damage == "half a file" else 3)
  build_shards(source, BYTES, tmp_path / "whole")
  assert contents(tmp_path / "s") == contents(tmp_path / "whole")


def test_shards_of_something_else_are_not_taken_up(rows, tmp_path, monkeypatch):
  kill_after(2, source_of(rows), tmp_path / "s", monkeypatch)
  for source, other in (
    (source_of(rows, size=800), "other shards"),
    (source_of(rows, shares=Shares(0.1, 0.1)), "other corpus"),
  ):
    with pytest.raises(StoreError, match=f"{other}.*--replace"):
      build_shards(source, BYTES, tmp_path / "s")
  tokenizer = ByteTokenizer()
  tokenizer.fingerprint = "0" * 64
  with pytest.raises(StoreError, match="other tokenizer"):
    build_shards(source_of(rows), tokenizer, tmp_path / "s")
  replaced = build_shards(
    source_of(rows, size=800), BYTES, tmp_path / "s", existing=Existing.REPLACE
  )
  build_shards(source_of(rows, size=800), BYTES, tmp_path / "whole")
  assert contents(replaced.path) == contents(tmp_path / "whole")


@pytest.mark.parametrize("existing", list(Existing))
def test_a_folder_of_something_else_is_never_touched(rows, tmp_path, existing):
  (tmp_path / "index.json").write_text("{}")
  with pytest.raises(StoreError, match="not a token store"):
    build_shards(source_of(rows), BYTES, tmp_path, existing=existing)
  assert contents(tmp_path) == {"index.json": b"{}"}


def test_a_finished_store_is_not_overwritten(rows, tmp_path):
  build_shards(source_of(rows), BYTES, tmp_path / "s")
  with pytest.raises(StoreError, match="already holds"):
    build_shards(source_of(rows), BYTES, tmp_path / "s")


class Dying(ByteTokenizer):
  """What running out of memory looks like to the other processes."""

  def encode(self, text):
    os._exit(9)


def test_a_dead_process_is_told(rows, tmp_path):
  with pytest.raises(StoreError, match=r"a process died.*fewer --workers"):
    build_shards(source_of(rows), Dying(), tmp_path / "s", workers=2)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bad_line_is_named(rows, tmp_path, workers):
  bad = tmp_path / "bad.jsonl"
  bad.write_text('{"text": "a"}\n' * 50 + '{"text": "a"\n')
  with pytest.raises(CorpusError, match=r"bad\.jsonl, line 51: not JSON"):
    build_shards(
      source_of([*rows, str(bad)]), BYTES, tmp_path / "s", workers=workers
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
      build_shards(source_of(rows), BYTES, tmp_path / "s")
  assert not list((tmp_path / "s").glob("*.tmp-*"))
  progress = Counting()
  build_shards(source_of(rows), BYTES, tmp_path / "s", progress=progress)
  assert progress.shards["kept"] == 3


def test_an_empty_split_is_an_error(rows, tmp_path):
  with pytest.raises(StoreError, match="split 'test': raise --test_share"):
    build_shards(
      source_of(rows, shares=Shares(0.2, 0.0)), BYTES, tmp_path / "s"
    )
