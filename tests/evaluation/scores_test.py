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
