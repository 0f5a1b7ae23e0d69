import dataclasses
import hashlib
import time

import numpy as np
import pytest

from hsa_jax.config import (
  Config,
  ConfigError,
  DataConfig,
  Haystack,
  Needle,
  SourceConfig,
  StageConfig,
  Task,
  TrainConfig,
  validate,
)
from hsa_jax.data.errors import StoreError
from hsa_jax.data.pipeline import Batch, TrainData, question_lengths
from hsa_jax.data.tokenizer import load_tokenizer

from .helpers import make_store

NIAH = SourceConfig(task=Task.NIAH)
NOISE = SourceConfig(task=Task.NIAH, haystack=Haystack.NOISE)
MANY = SourceConfig(weight=2.0, task=Task.NIAH, num_needles=4, num_questions=2)
IDS = SourceConfig(task=Task.NIAH, needle=Needle.IDS)
TEXT = SourceConfig()
STAGES = (
  StageConfig("noise", 3, 256, 4, (NOISE,)),
  StageConfig("mixed", 5, 448, 8, (MANY, TEXT, IDS)),
)


def _config(stages=STAGES, seed=0):
  return Config(data=DataConfig(stages=stages), train=TrainConfig(seed=seed))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
  return make_store(tmp_path_factory.mktemp("data") / "s")


@pytest.fixture
def data(store):
  return TrainData(_config(), store, load_tokenizer("byte"))


def _hashes(batches):
  return [
    sorted(hashlib.sha256(r.tobytes()).hexdigest() for r in b.tokens)
    for b in batches
  ]


def _assert_equal(one: Batch, other: Batch):
  for name, a, b in zip(Batch._fields, one, other, strict=True):
    np.testing.assert_array_equal(a, b, err_msg=name)


def test_shapes_types_and_shift(data):
  batch = data.batch(4)
  assert [a.shape for a in batch] == [(8, 448)] * 4
  kinds = [a.dtype.name for a in batch]
  assert kinds == ["int32", "int32", "float32", "float32"]
  np.testing.assert_array_equal(batch.tokens[:, 1:], batch.targets[:, :-1])
  assert (batch.weights == 1).all()


def test_stages_follow_one_another(data):
  assert len(data) == 8
  assert [data.stage(s).name for s in (0, 2, 3, 7)] == [
    "noise",
    "noise",
    "mixed",
    "mixed",
  ]
  assert data.batch(2).tokens.shape == (4, 256)
  assert data.batch(3).tokens.shape == (8, 448)
  for step in (-1, 8):
    with pytest.raises(IndexError, match=f"step {step} is not in 0..7"):
      data.batch(step)


def test_answers_mark_the_value_and_nothing_else(store):
  stages = (StageConfig("a", 20, 320, 4, (NIAH,)),)
  data = TrainData(_config(stages), store, load_tokenizer("byte"))
  for step in range(20):
    batch = data.batch(step)
    for row in range(4):
      marked = np.flatnonzero(batch.answers[row])
      # 8 digits, then eos at the very end, which is not an answer.
      np.testing.assert_array_equal(marked, np.arange(311, 319))
      value = bytes(batch.targets[row][marked].tolist())
      assert value.isdigit()
      text = bytes(t for t in batch.tokens[row].tolist() if t < 256)
      assert text.count(value) == 2
      assert batch.targets[row, -1] == 256


def test_question_and_needle_agree(store):
  stages = (StageConfig("a", 10, 448, 4, (MANY,)),)
  tokenizer = load_tokenizer("byte")
  data = TrainData(_config(stages), store, tokenizer)
  for step in range(10):
    batch = data.batch(step)
    for tokens, targets in zip(batch.tokens, batch.targets, strict=True):
      text = tokenizer.decode([*tokens, targets[-1]])
      for part in text.split(" What is the special magic number for ")[1:]:
        key, value = part.split(" mentioned")[0], part[-8:]
        assert f"numbers for {key} is:{value}|" in text


def test_sources_are_drawn_by_weight(store):
  stages = (StageConfig("a", 40, 448, 16, (MANY, TEXT, IDS)),)
  data = TrainData(_config(stages), store, load_tokenizer("byte"))
  answers = np.concatenate(
    [data.batch(s).answers.sum(axis=1) for s in range(40)]
  )
  share = [(answers == n).mean() for n in (16, 0, 7)]
  assert share == pytest.approx([0.5, 0.25, 0.25], abs=0.06)


def test_text_rows_are_slices_of_train(store):
  stages = (StageConfig("a", 4, 64, 8, (TEXT,)),)
  data = TrainData(_config(stages), store, load_tokenizer("byte"))
  train = store.split("train").astype(np.int32).tobytes()
  starts = set()
  for step in range(4):
    batch = data.batch(step)
    for tokens, targets in zip(batch.tokens, batch.targets, strict=True):
      at = train.find(np.append(tokens, targets[-1]).tobytes())
      assert at >= 0
      starts.add(at)
  assert len(starts) == 32


def test_a_row_longer_than_the_text_wraps_around(store):
  stages = (StageConfig("a", 1, 9_000, 1, (TEXT,)),)
  data = TrainData(_config(stages), store, load_tokenizer("byte"))
  size = store.num_tokens("train")
  batch = data.batch(0)
  np.testing.assert_array_equal(
    batch.tokens[0, size:], batch.tokens[0, : 9_000 - size]
  )


def test_a_batch_depends_on_seed_and_step_only(store, data):
  tokenizer = load_tokenizer("byte")
  again = TrainData(_config(), store, tokenizer)
  for step in (7, 0, 3):
    _assert_equal(again.batch(step), data.batch(step))
  other = TrainData(_config(seed=1), store, tokenizer)
  seen = _hashes([*map(data.batch, range(8)), *map(other.batch, range(8))])
  rows = [h for batch in seen for h in batch]
  assert len(set(rows)) == len(rows)


def strided(first: int, count: int):
  """The rows of one of several processes."""
  return lambda num_rows: range(first, num_rows, count)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_processes_share_one_global_batch(data, count):
  expected = [data.batch(s) for s in range(8)]
  parts = [
    list(data.iterator(0, share=strided(p, count))) for p in range(count)
  ]
  joined = []
  for step in range(8):
    rows = [part[step].tokens for part in parts]
    assert len({len(r) for r in rows}) == 1
    whole = np.empty_like(expected[step].tokens)
    for p, mine in enumerate(rows):
      whole[p::count] = mine
    joined.append(expected[step]._replace(tokens=whole))
    np.testing.assert_array_equal(whole, expected[step].tokens)
  assert _hashes(joined) == _hashes(expected)


def test_restart_on_another_number_of_processes(data):
  whole = _hashes(data.iterator())
  first = data.iterator(0)
  before = _hashes([next(first) for _ in range(3)])
  parts = [list(data.iterator(3, share=strided(p, 2))) for p in (0, 1)]
  after = [
    sorted(a + b)
    for a, b in zip(_hashes(parts[0]), _hashes(parts[1]), strict=True)
  ]
  assert before + after == whole


@pytest.mark.parametrize("num_threads", [0, 1, 3])
def test_threads_change_nothing(data, num_threads):
  batches = list(data.iterator(2, num_threads=num_threads))
  assert len(batches) == 6
  for step, batch in enumerate(batches, start=2):
    assert isinstance(batch, Batch)
    _assert_equal(batch, data.batch(step))


def test_iterator_ends_where_training_ends(data):
  assert list(data.iterator(8)) == []


def test_validation_is_fixed_held_out_text(store, data):
  batches = data.validation_batches(2)
  valid = store.split("valid").astype(np.int32).tobytes()
  for batch, again in zip(batches, data.validation_batches(2), strict=True):
    _assert_equal(batch, again)
    assert batch.tokens.shape == (8, 448)
    assert (batch.weights == 1).all()
    assert not batch.answers.any()
    for row in batch.tokens:
      assert row.tobytes() in valid
  halves = [data.validation_batches(2, share=strided(p, 2)) for p in (0, 1)]
  np.testing.assert_array_equal(halves[1][0].tokens, batches[0].tokens[1::2])


def test_short_validation_text_is_padded_without_weight(store):
  stages = (StageConfig("a", 1, 2_000, 2, (TEXT,)),)
  data = TrainData(_config(stages), store, load_tokenizer("byte"))
  (batch,) = data.validation_batches(1)
  size = store.num_tokens("valid")
  assert (batch.weights.sum(axis=1) == size - 1).all()
  assert (batch.targets[:, size - 1 :] == 257).all()
  assert (batch.weights[:, : size - 1] == 1).all()


def test_another_tokenizer_is_refused(store):
  tokenizer = load_tokenizer("byte")
  tokenizer.fingerprint = "0" * 64
  with pytest.raises(StoreError, match="made by tokenizer 'byte'"):
    TrainData(_config(), store, tokenizer)


def test_least_lengths_are_what_validation_needs(store):
  tokenizer = load_tokenizer("byte")
  lengths = question_lengths(_config(), tokenizer)
  assert set(lengths) == {"0/0", "1/0", "1/2"}
  for key, least in lengths.items():
    stage, source = map(int, key.split("/"))
    row = dataclasses.replace(
      STAGES[stage],
      seq_len=least,
      sources=(STAGES[stage].sources[source],),
    )
    TrainData(_config((row,)), store, tokenizer).batch(0)
    short = _config((dataclasses.replace(row, seq_len=least - 1),))
    with pytest.raises(ValueError, match=f"needs {least} tokens"):
      validate(short, min_question_len=question_lengths(short, tokenizer))


def test_a_source_that_the_tokenizer_cannot_spell_is_named():
  """129 pairs are within the rules, but half of 256 bytes are keys."""
  pairs = SourceConfig(
    task=Task.MQAR, haystack=Haystack.RANDOM, num_needles=129
  )
  cfg = _config((dataclasses.replace(STAGES[0], sources=(pairs,)),))
  with pytest.raises(ConfigError, match=r"sources\[0\]: num_needles = 129"):
    question_lengths(cfg, load_tokenizer("byte"))


def test_rows_are_those_of_version_1(store):
  """Hashed before the needle tasks had a common form."""
  copies = SourceConfig(task=Task.COPY, haystack=Haystack.RANDOM)
  stages = (
    STAGES[0],
    dataclasses.replace(STAGES[1], sources=(MANY, TEXT, IDS, copies)),
  )
  data = TrainData(_config(stages), store, load_tokenizer("byte"))
  found = hashlib.sha256()
  for step in range(8):
    for part in data.batch(step):
      found.update(part.tobytes())
  assert found.hexdigest() == (
    "fe6e401f38ec55e01f8ea57ce812e27839abea126cf313c57462af744dc14284"
  )


def test_a_batch_is_cheap(store):
  stages = (StageConfig("a", 100, 512, 16, (MANY, NOISE, TEXT)),)
  data = TrainData(_config(stages), store, load_tokenizer("byte"))
  data.batch(0)
  best = np.inf
  for step in range(1, 30):
    start = time.thread_time()
    data.batch(step)
    best = min(best, time.thread_time() - start)
  assert best < 5e-3


@pytest.mark.parametrize("haystack", [Haystack.TEXT, Haystack.RANDOM])
@pytest.mark.parametrize("length", [64, 63])
def test_copy_rows_repeat_their_first_half(store, length, haystack):
  """Rows have T + 1 tokens: of an odd number the copy lacks the last one."""
  source = SourceConfig(task=Task.COPY, haystack=haystack)
  stages = (StageConfig("a", 3, length, 4, (source,)),)
  data = TrainData(_config(stages), store, load_tokenizer("byte"))
  half = -(-(length + 1) // 2)
  for step in range(3):
    batch = data.batch(step)
    rows = np.concatenate([batch.tokens, batch.targets[:, -1:]], axis=1)
    np.testing.assert_array_equal(rows[:, half:], rows[:, : length + 1 - half])
    assert not batch.answers[:, : half - 1].any()
    assert batch.answers[:, half - 1 :].all()
    assert (batch.weights == 1).all()


def _copied_halves(store, haystack):
  source = SourceConfig(task=Task.COPY, haystack=haystack)
  stages = (StageConfig("a", 4, 999, 4, (source,)),)
  data = TrainData(_config(stages), store, load_tokenizer("byte"))
  return np.concatenate([data.batch(step).tokens[:, :500] for step in range(4)])


def test_copied_text_is_text(store):
  train = store.split("train").astype(np.int32).tobytes()
  halves = _copied_halves(store, Haystack.TEXT)
  assert all(half.tobytes() in train for half in halves)


def test_random_haystack_is_uniform_without_special_tokens(store):
  halves = _copied_halves(store, Haystack.RANDOM)
  assert halves.min() == 0 and halves.max() == 255
  assert np.bincount(halves.ravel(), minlength=256).max() < 80  # mean 31
  assert len(np.unique(halves[:, :8], axis=0)) == len(halves)
