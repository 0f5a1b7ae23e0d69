"""Paired tests against sums that can be done by hand, and published values."""

import itertools

import numpy as np
import pytest

from hsa_jax.evaluation import paired, scores


def coin_p_value(wins, losses):
  """All outcomes of the coin that are at least as lopsided, one by one."""
  trials, gap = wins + losses, abs(wins - losses)
  outcomes = list(itertools.product((-1, 1), repeat=trials))
  return sum(abs(sum(o)) >= gap for o in outcomes) / len(outcomes)


@pytest.mark.parametrize(
  ("wins", "losses"), [(0, 0), (1, 0), (5, 0), (2, 8), (4, 4), (7, 6)]
)
def test_sign_test_counts_the_outcomes_of_a_coin(wins, losses):
  got = paired.sign_test(wins, losses)
  assert got == pytest.approx(coin_p_value(wins, losses))
  assert got == paired.sign_test(losses, wins)


def test_sign_test_by_hand():
  # 10 discordant pairs, 8 to 2: 2 (1 + 10 + 45) / 1024.
  assert paired.sign_test(8, 2) == pytest.approx(112 / 1024)
  assert paired.sign_test(400, 100) < 1e-40  # no overflow
  with pytest.raises(ValueError, match="must not be negative"):
    paired.sign_test(-1, 2)


@pytest.mark.parametrize(
  ("table", "low", "high"),
  [
    ((36, 12, 2, 0), 0.0569, 0.3404),  # Newcombe (1998), table II, method 10
    ((36, 14, 0, 0), 0.1528, 0.4167),
  ],
)
def test_interval_of_paired_proportions_equals_published(table, low, high):
  got = paired.paired_interval(*table)
  assert got == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("table", [(9, 5, 1, 5), (20, 0, 0, 0), (0, 3, 3, 14)])
def test_interval_turns_over_with_the_models(table):
  both, only_a, only_b, neither = table
  low, high = paired.paired_interval(both, only_a, only_b, neither)
  swapped = paired.paired_interval(both, only_b, only_a, neither)
  assert swapped == pytest.approx((-high, -low))
  difference = (only_a - only_b) / sum(table)
  assert -1 <= low < difference < high <= 1


def test_interval_covers_the_truth_at_its_level():
  """2,000 experiments of 60 pairs with a known difference of 0.2."""
  rng = np.random.default_rng(0)
  tables = rng.multinomial(60, (0.4, 0.3, 0.1, 0.2), size=2_000)
  intervals = [paired.paired_interval(*map(int, t)) for t in tables]
  covered = np.mean([low <= 0.2 <= high for low, high in intervals])
  assert 0.935 < covered < 0.975


def test_zero_one_scores_are_compared_exactly():
  a = np.array([1, 1, 1, 1, 1, 1, 0, 1])
  b = np.array([1, 0, 0, 0, 0, 0, 0, 1])
  got = paired.compare_scores(a, b)
  assert (got.num_pairs, got.only_a, got.only_b) == (8, 5, 0)
  assert got.difference == pytest.approx(5 / 8)
  assert got.p_value == pytest.approx(2 / 32)
  assert got.interval == paired.paired_interval(2, 5, 0, 1)
  assert "McNemar" in got.method


def test_equal_models_differ_by_nothing():
  for values in (np.ones(6), np.array([0.2, 0.9, 0.4])):
    got = paired.compare_scores(values, values)
    assert got.difference == 0 and got.p_value == 1
    assert got.interval.low <= 0 <= got.interval.high


def test_fractions_use_what_samples_share():
  """Hard samples are hard for both: unpaired intervals would hide this gap."""
  rng = np.random.default_rng(0)
  hardness = rng.random(100) * 0.8
  a, b = hardness + 0.1 + 0.02 * rng.random(100), hardness
  got = paired.compare_scores(a, b)
  assert got.difference == pytest.approx(0.11, abs=0.01)
  assert got.interval.low > 0.1 and got.p_value < 0.001
  alone = scores.bootstrap_mean(a)
  assert alone.low < b.mean() + 0.1


def test_bootstrap_p_value_is_calibrated():
  """Without a difference, 5% of the experiments are below 0.05."""
  rng = np.random.default_rng(0)
  p_values = [
    paired.compare_ratios(x, np.zeros(40), np.ones(40), draws=400).p_value
    for x in rng.normal(size=(400, 40))
  ]
  assert 0.02 < np.mean(np.array(p_values) < 0.05) < 0.09


def test_ratios_weigh_by_tokens():
  got = paired.compare_ratios(
    np.array([20.0, 300.0]), np.array([10.0, 300.0]), np.array([10.0, 100.0])
  )
  assert got.mean_a == pytest.approx(320 / 110)
  assert got.difference == pytest.approx(10 / 110)
  assert got.interval == pytest.approx((0.0, 1.0))  # one document, drawn twice


def test_holm_by_hand():
  got = paired.holm([0.01, 0.04, 0.03, 0.5])
  assert got == pytest.approx([0.04, 0.09, 0.09, 0.5])
  assert paired.holm([0.7, 0.6]) == [1.0, 1.0]
  assert paired.holm([]) == []


def test_pairs_are_needed():
  with pytest.raises(ValueError, match="need pairs"):
    paired.compare_scores(np.ones(2), np.ones(3))
  with pytest.raises(ValueError, match="no samples"):
    paired.paired_interval(0, 0, 0, 0)
