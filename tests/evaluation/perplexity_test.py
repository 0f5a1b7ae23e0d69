"""Streamed losses against whole forward passes; buckets; units."""

import dataclasses
import math

import jax
import numpy as np
import pytest

from hsa_jax.evaluation import perplexity
from hsa_jax.evaluation.suite import asked_of
from hsa_jax.ops.loss import cross_entropy

from .helpers import make_session


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
  """All jobs of the suite on a split of 3,001 tokens, by (task, length)."""
  session = make_session(
    tmp_path_factory.mktemp("ppl"), lengths=(40, 200, 8192), samples=3
  )
  jobs = perplexity.SUITE.jobs(asked_of(session))
  return session, {
    (j.task, j.length): (j, perplexity.SUITE.run(session, j)) for j in jobs
  }


def full_nats(session, start, length):
  """Loss of every token of a stretch of the split read as a ring."""
  tokens = session.store.split("test")
  row = perplexity.ring(tokens, start, length)[None]
  return np.asarray(_forward(session.model, row), np.float64)[0]


@jax.jit
def _forward(model, rows):
  return cross_entropy(model(rows[:, :-1]), rows[:, 1:])


def test_lengths_beyond_the_split_are_left_out(measured):
  assert list(measured[1]) == [
    ("by_position", 1500),
    ("last_20", 40),
    ("last_20", 200),
  ]


@pytest.mark.parametrize("length", [40, 200])
def test_streamed_targets_equal_the_full_forward_pass(measured, length):
  session, results = measured
  job, _ = results["last_20", length]
  for sample, line in session.results.finished(job.key).items():
    end = perplexity._target_end(session, job, sample)
    want = full_nats(session, end - length, length)[-20:].sum()
    assert line["nats"] == pytest.approx(want, rel=1e-5)
    assert line["num_targets"] == 20


def test_targets_are_the_same_behind_every_context(measured):
  session, results = measured
  jobs = [results["last_20", n][0] for n in (40, 200)]
  ends = [
    [perplexity._target_end(session, job, i) for i in range(3)] for job in jobs
  ]
  assert ends[0] == ends[1]
  thirds = [3 * end // session.store.num_tokens("test") for end in ends[0]]
  assert thirds == [0, 1, 2]


def test_windows_equal_the_full_forward_pass(measured):
  session, results = measured
  job, result = results["by_position", 1500]
  start = perplexity._target_end(session, job, 1)
  want = full_nats(session, start, 1501)
  line = session.results.finished(job.key)[1]
  assert line["nats"] == pytest.approx(want.sum(), rel=1e-5)
  assert sum(b["num_targets"] for b in line["buckets"]) == 1500
  buckets = result["buckets"]
  total = sum(b["nats_per_token"] * b["num_targets"] for b in buckets)
  assert total / 4500 == pytest.approx(result["score"])


def test_long_windows_are_streamed_to_the_same_numbers(measured, monkeypatch):
  session, results = measured
  job, _ = results["by_position", 1500]
  monkeypatch.setattr(perplexity, "MAX_FORWARD", 1000)
  jobs = perplexity.SUITE.jobs(asked_of(session))
  streamed = jobs[0]
  assert (streamed.protocol, streamed.length) == ("full_sequence", 1500)
  perplexity.SUITE.run(session, streamed)
  whole = session.results.finished(job.key)
  for sample, line in session.results.finished(streamed.key).items():
    for got, want in zip(
      line["buckets"], whole[sample]["buckets"], strict=True
    ):
      assert got == pytest.approx(want, rel=1e-5)


def test_units(measured):
  session, results = measured
  for _, result in results.values():
    assert result["perplexity"] == pytest.approx(math.exp(result["score"]))
    bits = result["score"] / math.log(2)
    # 3,000 letters and one eos: 3,001 tokens of 3,000 bytes.
    assert result["bits_per_byte"] == pytest.approx(bits * 3001 / 3000)
    assert result["ci_low"] <= result["score"] <= result["ci_high"]
  assert "bits/byte over 4,500 tokens" in perplexity.SUITE.describe(
    result_of(results)
  )


def result_of(results):
  return results["by_position", 1500][1]


def test_buckets_double_and_hold_everything():
  got = perplexity.position_buckets(np.arange(11.0))
  assert [(b["first"], b["last"]) for b in got] == [
    (0, 1),
    (2, 3),
    (4, 7),
    (8, 10),
  ]
  assert [b["nats"] for b in got] == [1, 5, 22, 27]


def test_ring_goes_on_at_the_beginning():
  got = perplexity.ring(np.arange(5, dtype=np.uint16), -2, 8)
  np.testing.assert_array_equal(got, [3, 4, 0, 1, 2, 3, 4, 0])
  assert got.dtype == np.int32


def test_either_protocol_can_be_asked_for_alone(measured):
  session, _ = measured
  asked = asked_of(session)
  for task, wanted in (("by_position", 1), ("by_length", 2)):
    settings = dataclasses.replace(asked.settings, tasks=(task,))
    jobs = perplexity.SUITE.jobs(asked._replace(settings=settings))
    assert len(jobs) == wanted
