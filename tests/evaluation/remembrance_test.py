"""Effective remembrance against whole forward passes on cut contexts."""

import jax
import numpy as np
import pytest

from hsa_jax.evaluation import FlagError, receptive_field, remembrance
from hsa_jax.evaluation.perplexity import ring
from hsa_jax.evaluation.results import read_lines
from hsa_jax.evaluation.suite import asked_of

from .helpers import build_model, make_session, model_config

LENGTH, CHUNK = 150, 4


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
  """Two samples of a model with memory, in batches of three contexts."""
  return run(tmp_path_factory.mktemp("hsa"))


@pytest.fixture(scope="module")
def control(tmp_path_factory):
  """The same of a model that has windows only."""
  return run(tmp_path_factory.mktemp("swa"), cfg=model_config(num_groups=0))


def run(folder, **more):
  session = make_session(
    folder, lengths=(LENGTH,), samples=2, batch=3, segment=32, **more
  )
  (job,) = remembrance.SUITE.jobs(asked_of(session))
  return session, job, remembrance.SUITE.run(session, job)


@jax.jit
def _next(model, rows, last):
  return jax.nn.softmax(model(rows)[:, last - 1])


def naive(session, ends, kept):
  """Full forward passes, all of one padded shape: causal."""
  tokens = session.store.split("test")
  rows = np.zeros((len(ends), LENGTH), np.int32)
  rows[:, :kept] = [ring(tokens, end - kept, kept) for end in ends]
  return np.asarray(_next(build_model(session.cfg.model), rows, kept))


def test_curve_is_that_of_full_forward_passes(measured):
  session, job, result = measured
  curves = []
  for number, row in session.results.finished(job.key).items():
    ends = remembrance.ends_of(session, job, number)
    assert len(set(ends)) == remembrance.NUM_ENDS
    whole = naive(session, ends, LENGTH)
    want = [
      np.abs(whole - naive(session, ends, kept)).sum(-1).mean() / 2
      for kept, _ in row["curve"]
    ]
    np.testing.assert_allclose([v for _, v in row["curve"]], want, atol=2e-5)
    curves.append(want)
  mean = np.mean(curves, axis=0)
  points = result["curve"]
  np.testing.assert_allclose([p["mean"] for p in points], mean, atol=2e-5)
  half = [p["mean"] for p in points if abs(p["t"] - LENGTH / 2) < 8]
  assert result["score"] in half
  assert all(p["ci_low"] <= p["mean"] <= p["ci_high"] for p in points)


def test_a_memory_remembers_and_a_window_does_not(measured, control):
  """Exactly: the same tokens go through the same programs."""
  session, _, result = control
  field = receptive_field(session.cfg.model)
  inside = [p["mean"] for p in result["curve"] if p["kept"] < field]
  beyond = [p["mean"] for p in result["curve"] if p["kept"] >= field]
  assert beyond and set(beyond) == {0.0}
  assert min(inside[:5]) > 0 and result["reach"] <= field + CHUNK
  far = [p["mean"] for p in measured[2]["curve"] if field <= p["kept"] < 100]
  assert min(far) > 1e-3


def test_grid_is_logarithmic_and_keeps_whole_chunks():
  for length in (2, 40, 150, 4096, 1 << 20):
    kept = remembrance.kept_lengths(length, 64)
    assert kept == sorted(set(kept)) and 0 < kept[0] and kept[-1] < length
    assert all((length - k) % 64 == 0 for k in kept if k >= 64)
  assert len(kept) >= 16
  # Everything together is a few readings of the whole.
  assert sum(kept) < 4 * length


def test_total_variation_is_zero_one_and_half():
  left = np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
  right = np.array([[0.0, 0.5, 0.5], [0.0, 0.0, 1.0]])
  assert remembrance.total_variation(left, left) == 0
  assert remembrance.total_variation(left, right) == 0.75


def test_reach_is_where_the_tail_is_small():
  def points(*means):
    return [
      remembrance.Point(9 - i, i + 1, m, m, m) for i, m in enumerate(means)
    ]

  assert remembrance.reach_of(points(0.5, 0.0, 0.2, 0.001, 0.0)) == 4
  assert remembrance.reach_of(points(0.5, 0.4)) is None


def test_finished_samples_stay_and_ends_do_not_depend_on_the_length(measured):
  session, job, result = measured
  again = make_session(
    session.results.path.parent, lengths=(LENGTH,), samples=2, batch=1
  )
  assert remembrance.SUITE.run(again, job) == result
  assert again.prefill.num_compilations == 0
  (line,) = read_lines(session.results.path / "results.jsonl")
  assert line["metric"] == "total_variation"
  assert remembrance.SUITE.describe(result).startswith(
    "effective_remembrance 150: 0."
  )


def test_contexts_beyond_the_held_out_text_are_refused(measured):
  asked = asked_of(measured[0])
  settings = measured[0].settings
  bad = type(settings)((LENGTH, 4096), settings.samples)
  with pytest.raises(FlagError, match="--lengths: 4K: .* takes 2 to 2,6"):
    remembrance.SUITE.check(asked._replace(settings=bad))
