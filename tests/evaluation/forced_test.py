"""The teacher-forced engine on samples of any form, against a full forward."""

import functools

import jax
import numpy as np
import pytest

from hsa_jax.evaluation import forced
from hsa_jax.evaluation.room import Room

from .helpers import build_model, make_session
from .samples import make_job, random_forced

LENGTH = 150


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
  """Session, job and result of three samples in batches of two."""
  session = make_session(tmp_path_factory.mktemp("forced"))
  job = make_job(LENGTH)
  make = functools.partial(random_forced, length=LENGTH)
  return session, job, forced.run_forced_job(session, job, make)


@jax.jit
def _forward(model, tokens):
  return model(tokens)


def full_argmax(tokens: np.ndarray) -> np.ndarray:
  return np.argmax(_forward(build_model(), tokens[None])[0], axis=-1)


def test_predictions_equal_the_full_forward_pass(measured):
  session, job, result = measured
  rows = session.results.finished(job.key)
  assert sorted(rows) == [0, 1, 2]
  right = 0
  for seed, row in rows.items():
    sample = random_forced(seed, LENGTH)
    want = full_argmax(sample.tokens)[np.array(sample.positions) - 1]
    assert row["prediction_ids"] == want.tolist()
    assert row["gold_ids"] == sample.answer.gold.tolist()
    assert row["correct"] == (want == sample.answer.gold).all()
    assert row["recipe"] == sample.describe()
    right += (want == sample.answer.gold).sum()
  assert result["token_accuracy"] == right / 12


def test_tokens_without_a_source_are_not_asked_of_the_memory(measured):
  session, job, result = measured
  rows = session.results.finished(job.key).values()
  assert [row["sourced_tokens"] for row in rows] == [3, 3, 3]
  found = sum(row["recalled_tokens"] for row in rows)
  assert result["recall_at_k"] == found / 9


def test_gold_is_right_and_noise_is_wrong(tmp_path):
  """The tokens the model itself prefers score 1, others 0."""
  session = make_session(tmp_path)

  def oracle(seed):
    sample = random_forced(seed, LENGTH)
    for where in sample.positions:  # the answer changes what follows it
      sample.tokens[where] = full_argmax(sample.tokens)[where - 1]
    return sample

  job = make_job(LENGTH, 2)
  result = forced.run_forced_job(session, job, oracle)
  assert (result["score"], result["num_correct"]) == (1.0, 2)
  assert result["ci_low"] < 1
  wrong = make_job(LENGTH, 2, task="wrong")

  def spoilt(seed):
    sample = oracle(seed)
    sample.tokens[sample.positions[-1]] ^= 1  # one wrong token is enough
    return sample

  result = forced.run_forced_job(session, wrong, spoilt)
  assert (result["score"], result["token_accuracy"]) == (0.0, 0.75)


def test_a_sample_of_another_length_is_refused(measured):
  session, job, _ = measured
  with Room(session, LENGTH) as room, pytest.raises(ValueError, match="149"):
    sample = random_forced(0, LENGTH - 1)
    list(forced.run_forced(session, job, room, [0], [sample]))


def test_description_names_task_length_and_count(measured):
  text = forced.describe_forced(measured[2])
  assert text.startswith(f"task {LENGTH}: 0/3 correct [0.00, 0.56], recall@K 0")
