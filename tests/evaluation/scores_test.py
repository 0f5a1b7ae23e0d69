"""Intervals against published values and their defining properties."""

import numpy as np
import pytest

from hsa_jax.evaluation import scores


@pytest.mark.parametrize(
  ("successes", "trials", "low", "high"),
  [
    (20, 20, 0.8389, 1.0),
    (10, 10, 0.7225, 1.0),
    (0, 20, 0.0, 0.1611),
    (81, 263, 0.2553, 0.3662),  # Newcombe, Stat. Med. 17 (1998), table I
    (15, 148, 0.0624, 0.1605),
    (1, 29, 0.0061, 0.1718),
  ],
)
def test_wilson_equals_published_values(successes, trials, low, high):
  got = scores.wilson(successes, trials)
  assert got == pytest.approx((low, high), abs=5e-5)


def test_wilson_bounds_solve_the_score_equation():
  n, k = 37, 11
  for bound in scores.wilson(k, n):
    z = (k / n - bound) / np.sqrt(bound * (1 - bound) / n)
    assert abs(z) == pytest.approx(scores.Z_95)


def test_wilson_without_trials_knows_nothing():
  assert scores.wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("successes", "trials"), [(3, 2), (-1, 2)])
def test_wilson_rejects_impossible_counts(successes, trials):
  with pytest.raises(ValueError, match="must be in 0.."):
    scores.wilson(successes, trials)


def test_bootstrap_covers_the_ratio_and_is_reproducible():
  rng = np.random.default_rng(0)
  count = rng.integers(50, 100, 200).astype(float)
  nats = count * rng.normal(2.0, 0.3, 200)
  ratio = nats.sum() / count.sum()
  got = scores.bootstrap_ratio(nats, count, seed=3)
  assert got == scores.bootstrap_ratio(nats, count, seed=3)
  assert got.low < ratio < got.high
  # Normal theory: 1.96 standard errors to each side, here about 0.042.
  assert 0.06 < got.high - got.low < 0.11


def test_bootstrap_of_one_document_is_a_point():
  got = scores.bootstrap_ratio(np.array([6.0]), np.array([3.0]))
  assert got == (2.0, 2.0)


def test_bootstrap_rejects_empty_documents():
  with pytest.raises(ValueError, match="positive counts"):
    scores.bootstrap_ratio(np.array([1.0]), np.array([0.0]))


def test_exact_match_needs_every_token():
  gold = np.array([4, 5, 6])
  assert scores.exact_match(np.array([4, 5, 6]), gold)
  assert not scores.exact_match(np.array([4, 5, 7]), gold)
  with pytest.raises(ValueError, match="2 predicted for 3"):
    scores.exact_match(np.array([4, 5]), gold)
  with pytest.raises(ValueError, match="0 gold"):
    scores.exact_match(np.array([]), np.array([]))


def test_bootstrap_in_blocks_gives_the_numbers_of_one_block(monkeypatch):
  rng = np.random.default_rng(1)
  values = rng.random(30)
  whole = scores.bootstrap_mean(values, seed=2)
  monkeypatch.setattr(scores, "_BLOCK", 100)
  assert scores.bootstrap_mean(values, seed=2) == whole


def test_bootstrap_of_a_mean_equals_the_exact_distribution():
  """Three values have 27 resamples: their quantiles can be written down."""
  values = np.array([0.0, 0.3, 0.9])
  sums = sorted((a + b + c) / 3 for a in values for b in values for c in values)
  # 2.5% of 27 equally likely means lies inside the smallest, 1/27 = 3.7%.
  got = scores.bootstrap_mean(values)
  assert got == pytest.approx((sums[0], sums[-1]), abs=1e-12)


def test_bootstrap_of_a_mean_has_the_width_of_normal_theory():
  values = np.random.default_rng(0).beta(2, 1, 400)
  got = scores.bootstrap_mean(values)
  width = 2 * scores.Z_95 * values.std() / np.sqrt(400)
  assert got.high - got.low == pytest.approx(width, rel=0.05)
  assert got != scores.bootstrap_mean(values, seed=1)


def test_clusters_are_drawn_whole():
  values = np.repeat([0.0, 1.0, 1.0, 0.0, 1.0], 40)
  clusters = np.repeat([7, 3, 9, 1, 4], 40)
  apart = scores.bootstrap_mean(values)
  together = scores.cluster_bootstrap_mean(values, clusters)
  # Five haystacks are five observations, however many questions they hold.
  five = scores.bootstrap_mean(np.array([0.0, 1.0, 1.0, 0.0, 1.0]))
  assert together.high - together.low > 4 * (apart.high - apart.low)
  assert together == pytest.approx(five, abs=1e-9)


def test_clusters_of_one_are_samples():
  values = np.random.default_rng(3).random(20)
  order = np.arange(20)
  assert scores.cluster_bootstrap_mean(values, order) == pytest.approx(
    scores.bootstrap_mean(values)
  )


def test_a_printed_interval_is_never_a_bare_hundred_percent():
  assert scores.score_interval(np.ones(20)) == scores.wilson(20, 20)
  assert scores.score_interval(np.zeros(5)) == scores.wilson(0, 5)
  assert scores.score_interval(np.array([])) == (0.0, 1.0)
  mixed = np.array([0.25, 1.0, 0.5, 1.0])
  assert scores.score_interval(mixed) == scores.bootstrap_mean(mixed)
  with pytest.raises(ValueError, match="must be in 0..1"):
    scores.score_interval(np.array([87.5]))
