"""Synthetic rows in training, and that evaluation never meets them."""

import dataclasses
import zlib

import pytest

from hsa_jax.config import (
  Config,
  DataConfig,
  Haystack,
  SourceConfig,
  StageConfig,
  Task,
)
from hsa_jax.data.pipeline import TrainData, question_lengths
from hsa_jax.data.rng import EVAL, MIX, TRAIN
from hsa_jax.data.tokenizer import load_tokenizer
from hsa_jax.data.tokens.catalog import SYNTHETIC, make_task
from hsa_jax.data.tokens.layout import evaluation_purpose, evaluation_sample
from hsa_jax.data.tokens.rings import make_haystacks

from .helpers import make_store

TEXT = SourceConfig()
TOKENIZER = load_tokenizer("byte")
SYNTHETIC_FORMS = (
  "for long-context mentioned in",
  "What are all the special magic numbers",
  "Find all variables",
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
  return make_store(tmp_path_factory.mktemp("data") / "s")


def _mixed(store, share, stages):
  data = DataConfig(stages=stages, synthetic_mix=share)
  return TrainData(Config(data=data), store, TOKENIZER)


def _text_rows(data, steps):
  batches = [data.batch(step) for step in range(steps)]
  return [TOKENIZER.decode(row) for batch in batches for row in batch.targets]


def test_synthetic_mix_replaces_its_share_of_rows(store):
  stages = (StageConfig("a", 60, 640, 16, (TEXT,)),)
  plain, mixed = _mixed(store, 0.0, stages), _mixed(store, 0.3, stages)
  before, after = _text_rows(plain, 60), _text_rows(mixed, 60)
  changed = [new for old, new in zip(before, after, strict=True) if old != new]
  assert len(changed) / len(after) == pytest.approx(0.3, abs=0.05)
  kinds = [sum(form in row for row in changed) for form in SYNTHETIC_FORMS]
  assert sum(kinds) == len(changed)
  assert min(kinds) > 0.25 * len(changed)
  batch = mixed.batch(0)
  assert (batch.weights == 1).all()  # the loss is that of all tokens
  assert not any(form in row for row in before for form in SYNTHETIC_FORMS)
  assert len(_text_rows(_mixed(store, 1.0, stages), 1)) == 16


def test_training_and_evaluation_never_meet(store):
  """By construction of the streams, and in what is drawn."""
  stages = (StageConfig("a", 40, 640, 16, (TEXT,)),)
  data = _mixed(store, 1.0, stages)
  trained = {row.tobytes() for s in range(40) for row in _answers(data, s)}
  haystacks = make_haystacks(store.split("test"), TOKENIZER)
  for source, stream in zip(SYNTHETIC, ("", "mk_mq", "vt"), strict=True):
    task = make_task(source, TOKENIZER)
    for sample in range(200):
      drawn = evaluation_sample(
        task,
        haystacks,
        stream=stream,
        seed=0,  # of training, too
        sample=sample,
        num_samples=200,
        length=641,
      )
      assert drawn.answer.gold.tobytes() not in trained
  assert len(trained) > 600


def _answers(data, step):
  batch = data.batch(step)
  pairs = zip(batch.targets, batch.answers, strict=True)
  return [row[mask > 0] for row, mask in pairs]


def test_streams_of_training_and_evaluation_have_different_keys():
  names = [
    TRAIN,
    MIX,
    *map(evaluation_purpose, ("", *(str(task) for task in Task))),
    evaluation_purpose("passkey_text"),
  ]
  keys = {zlib.crc32(name.encode()) for name in names}
  assert len(keys) == len(names)
  assert all(n.startswith(EVAL) for n in names[2:])


@pytest.mark.parametrize(
  "source",
  [
    SourceConfig(task=Task.MK_MQ, num_needles=4, num_questions=4),
    SourceConfig(task=Task.VT, num_needles=6, num_questions=2),
    SourceConfig(task=Task.FWE),
    SourceConfig(task=Task.PASSKEY, haystack=Haystack.NOISE),
    SourceConfig(
      task=Task.MQAR,
      haystack=Haystack.RANDOM,
      num_needles=8,
      num_questions=8,
    ),
    SourceConfig(task=Task.COPY_SPAN, haystack=Haystack.RANDOM),
  ],
)
def test_every_task_makes_training_rows(store, source):
  stage = StageConfig("a", 3, 1_100, 4, (source,))
  least = question_lengths(Config(data=DataConfig(stages=(stage,))), TOKENIZER)[
    "0/0"
  ]
  short = dataclasses.replace(stage, name="b", seq_len=least)
  data = _mixed(store, 0.0, (stage, short))
  for step in range(6):
    batch = data.batch(step)
    assert (batch.targets[:, -1] == TOKENIZER.eos_id).all()
    assert batch.answers.any(axis=1).all()
    assert not batch.answers[:, -1].any()
