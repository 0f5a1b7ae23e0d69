"""Intervals over seeds: against SciPy, and where nothing varies."""

import numpy as np
import pytest
import scipy.stats

from hsa_jax.ablation.statistics import (
  is_clear,
  over_seeds,
  paired_by_seed,
  t_quantile,
)
from hsa_jax.evaluation.scores import wilson


@pytest.mark.parametrize("degrees", [1, 2, 4, 8, 9, 10, 29, 1000])
def test_t_quantile_is_that_of_scipy(degrees):
  exact = scipy.stats.t.ppf(0.975, degrees)
  assert t_quantile(degrees) == pytest.approx(exact, abs=1e-3)


def test_t_quantile_needs_a_degree():
  with pytest.raises(ValueError, match="needs 1"):
    t_quantile(0)


def test_interval_over_seeds_is_that_of_scipy():
  values = [0.5, 0.625, 0.75, 0.5, 0.875]
  found = over_seeds(values)
  low, high = scipy.stats.t.interval(
    0.95, 4, loc=np.mean(values), scale=scipy.stats.sem(values)
  )
  assert found.mean == pytest.approx(np.mean(values))
  assert found.interval == pytest.approx((low, high), abs=1e-3)
  assert (found.num_seeds, found.over) == (5, "seeds")


def test_shares_stay_inside_zero_and_one():
  found = over_seeds([1.0, 1.0, 0.5], trials=8, bounded=True)
  assert found.interval.high == 1.0
  assert over_seeds([1.0, 1.0, 0.5]).interval.high > 1.0


def test_full_marks_of_all_seeds_are_not_certainty():
  found = over_seeds([1.0, 1.0, 1.0], trials=20)
  assert found.interval == wilson(60, 60)
  assert found.over == "samples"


def test_one_seed_has_an_interval_over_samples_only():
  assert over_seeds([0.5], trials=10).interval == wilson(5, 10)
  assert over_seeds([3.7]).interval is None


def test_no_values_are_refused():
  with pytest.raises(ValueError, match="no values"):
    over_seeds([])


def test_pairing_removes_what_seeds_have_in_common():
  base = {0: 0.2, 1: 0.5, 2: 0.8}
  cell = {0: 0.1, 1: 0.42, 2: 0.68, 7: 0.0}
  found = paired_by_seed(cell, base)
  gaps = [-0.1, -0.08, -0.12]
  low, high = scipy.stats.t.interval(
    0.95, 2, loc=np.mean(gaps), scale=scipy.stats.sem(gaps)
  )
  assert found.num_seeds == 3
  assert found.interval == pytest.approx((low, high), abs=1e-4)
  assert is_clear(found)
  assert not is_clear(paired_by_seed({0: 0.1, 1: 0.6}, base))


def test_a_difference_of_shares_is_at_most_one():
  ones, others = {0: 1.0, 1: 1.0}, {0: 0.0, 1: 0.5}
  assert paired_by_seed(ones, others).interval.high > 1
  assert paired_by_seed(ones, others, bounded=True).interval == (-1.0, 1.0)


def test_equal_differences_are_not_certainty():
  ones, zeros = dict.fromkeys(range(3), 1.0), dict.fromkeys(range(3), 0.0)
  same = paired_by_seed(ones, ones, trials=10)
  assert same.mean == 0 and same.interval.low < 0 < same.interval.high
  apart = paired_by_seed(ones, zeros, trials=10)
  assert apart.mean == 1 and is_clear(apart) and apart.interval.low < 1


def test_without_a_common_seed_there_is_no_difference():
  assert paired_by_seed({1: 0.5}, {2: 0.5}) is None
  assert not is_clear(None)
