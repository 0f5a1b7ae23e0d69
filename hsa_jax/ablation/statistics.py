"""Means over seeds with intervals, and differences to the base, paired by seed.

A seed is one training run: what a recipe gives is a distribution over seeds,
and its mean is what a cell is judged by. Samples within a run only say how well
that run is known.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from hsa_jax.evaluation.scores import Interval, wilson

# Two-sided 95% quantiles of Student's t by degrees of freedom, from 1.
_T_95 = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060)
_Z_95 = 1.959963984540054


class Estimate(NamedTuple):
  """A mean over seeds.

  Attributes:
    mean: over the seeds, each counting once.
    interval: 95%, of the mean; None where one value says nothing about others.
    num_seeds: seeds it is made of.
    over: what the interval is over: `seeds`, or `samples` where the seeds do
      not differ or there is one only.
  """

  mean: float
  interval: Interval | None
  num_seeds: int
  over: str


def t_quantile(degrees: int) -> float:
  """97.5% quantile of Student's t; within 0.001 of the exact value.

  Raises:
    ValueError: for no degrees of freedom.

  Source: R. A. Fisher and E. A. Cornish, Technometrics 2 (1960) 209-225.
  """
  if degrees < 1:
    raise ValueError(f"t_quantile: {degrees} degrees of freedom; needs 1")
  if degrees <= len(_T_95):
    return _T_95[degrees - 1]
  z, n = _Z_95, float(degrees)
  first = (z**3 + z) / 4
  second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
  third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
  return z + first / n + second / n**2 + third / n**3


def over_seeds(
  values: Sequence[float], *, trials: int | None = None, bounded: bool = False
) -> Estimate:
  """The mean of one value per seed, with a t interval.

  Args:
    values: one per seed; at least one.
    trials: samples behind each value, where it is the share that was right:
      where all seeds agree the interval is then Wilson's over all samples, so
      that full marks are not certainty.
    bounded: whether the values are shares: the interval stays inside [0, 1].

  Raises:
    ValueError: for no values.
  """
  if not len(values):
    raise ValueError("over_seeds: no values")
  array = np.asarray(values, np.float64)
  mean, count = float(array.mean()), len(array)
  spread = float(array.std(ddof=1)) if count > 1 else 0.0
  if spread > 0:
    reach = t_quantile(count - 1) * spread / math.sqrt(count)
    low, high = mean - reach, mean + reach
    if bounded:
      low, high = max(low, 0.0), min(high, 1.0)
    return Estimate(mean, Interval(low, high), count, "seeds")
  if trials is None:
    return Estimate(mean, None, count, "seeds")
  pooled = wilson(round(float(array.sum()) * trials), count * trials)
  return Estimate(mean, pooled, count, "samples")


def paired_by_seed(
  cell: Mapping[int, float],
  base: Mapping[int, float],
  *,
  trials: int | None = None,
  bounded: bool = False,
) -> Estimate | None:
  """Cell minus base over the seeds that both have; None if there are none.

  Args:
    cell: values by seed.
    base: likewise; a seed draws the same rows of training for both.
    trials: as in `over_seeds`; where the differences do not vary, the interval
      is then that of two independent shares over all samples.
    bounded: whether the values are shares: a difference is then at most one.
  """
  seeds = sorted(cell.keys() & base.keys())
  if not seeds:
    return None
  gaps = [cell[seed] - base[seed] for seed in seeds]
  found = over_seeds(gaps)
  if found.interval is not None:
    return found._replace(interval=_inside(found.interval, bounded))
  if trials is None:
    return found
  total = trials * len(seeds)
  shares = [sum(x[s] for s in seeds) / len(seeds) for x in (cell, base)]
  interval = _inside(_two_shares(shares[0], shares[1], total), True)
  return found._replace(interval=interval, over="samples")


def _inside(interval: Interval, bounded: bool) -> Interval:
  low, high = interval
  return Interval(max(low, -1.0), min(high, 1.0)) if bounded else interval


def is_clear(difference: Estimate | None) -> bool:
  """Whether the interval of a difference leaves out zero."""
  if difference is None or difference.interval is None:
    return False
  return difference.interval.low > 0 or difference.interval.high < 0


def _two_shares(a: float, b: float, total: int) -> Interval:
  """95% interval of the difference of two shares of `total` samples each.

  Source: R. G. Newcombe, Stat. Med. 17 (1998) 873-890, method 10.
  """
  one, two = wilson(round(a * total), total), wilson(round(b * total), total)
  return Interval(
    a - b - math.hypot(a - one.low, two.high - b),
    a - b + math.hypot(one.high - a, b - two.low),
  )
