"""Rows of several segments: `StageConfig.neg_sampling_group`."""

import dataclasses
import re

import numpy as np
import pytest

from hsa_jax.config import (
  Config,
  ConfigError,
  DataConfig,
  OptimizerConfig,
  SourceConfig,
  StageConfig,
  Task,
  validate,
)
from hsa_jax.data.pipeline import TrainData, question_lengths
from hsa_jax.data.tokenizer import load_tokenizer

from .helpers import make_store

MANY = SourceConfig(task=Task.NIAH, num_needles=4, num_questions=2)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
  return make_store(tmp_path_factory.mktemp("data") / "s")


def make_config(stage) -> Config:
  return Config(
    data=DataConfig(stages=(stage,)), optimizer=OptimizerConfig(warmup_steps=1)
  )


def grouped(count, source=MANY, length=448):
  stage = StageConfig("s", 3, length * count, 2, (source,))
  return dataclasses.replace(stage, neg_sampling_group=count)


def test_segments_of_a_row_are_samples_of_their_own(store):
  """Every segment ends with its own questions about its own needles."""
  data = TrainData(make_config(grouped(3)), store, load_tokenizer("byte"))
  numbers = []
  for row in data.batch(1).tokens:
    text = bytes(t if t < 256 else 0 for t in row)
    for part in (text[i * 448 : (i + 1) * 448] for i in range(3)):
      needles = set(re.findall(rb" is: ?([0-9]{8})", part))
      asked = re.findall(rb"provided text\? Answer: *([0-9]{8})", part)
      assert len(needles) == 4 and len(asked) == 2, part
      assert set(asked) <= needles
      numbers += needles
  assert len(set(numbers)) == 2 * 3 * 4


def test_segments_have_answers_everywhere(store):
  data = TrainData(make_config(grouped(4)), store, load_tokenizer("byte"))
  answers = data.batch(0).answers.reshape(2, 4, 448).sum(axis=2)
  np.testing.assert_array_equal(answers, 16)  # two numbers of eight digits


def test_one_segment_is_a_row_as_before(store):
  tokenizer = load_tokenizer("byte")
  one = TrainData(make_config(grouped(1)), store, tokenizer).batch(2)
  stage = StageConfig("s", 3, 448, 2, (MANY,))
  other = TrainData(make_config(stage), store, tokenizer).batch(2)
  for a, b in zip(one, other, strict=True):
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
  ("count", "length", "message"),
  [
    (0, 448, "neg_sampling_group = 0: must be at least 1"),
    (3, 448, "multiple of neg_sampling_group = 3; nearest: 447"),
    (4, 448, "seq_len = 448: source 0 .* for 4 segments"),
  ],
)
def test_segments_that_cannot_be(count, length, message):
  stage = dataclasses.replace(
    StageConfig("s", 3, length, 2, (MANY,)), neg_sampling_group=count
  )
  cfg, tokenizer = make_config(stage), load_tokenizer("byte")
  with pytest.raises(ConfigError, match=message):
    validate(cfg, min_question_len=question_lengths(cfg, tokenizer))


def test_the_shortest_segments_that_fit_can_be_drawn(store):
  tokenizer = load_tokenizer("byte")
  cfg = make_config(grouped(1))
  need = question_lengths(cfg, tokenizer)["0/0"]
  for count in (1, 2, 3):
    length = need + (count > 1)
    short = make_config(grouped(count, length=length))
    validate(short, min_question_len=question_lengths(short, tokenizer))
    TrainData(short, store, tokenizer).batch(0)
