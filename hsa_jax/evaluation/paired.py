"""Two models on the same samples: differences, intervals, tests.

Each sample is its own control, so what makes samples hard for both models
cancels out. Every function takes the scores of A and B in the same order.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from hsa_jax.evaluation.scores import (
  DRAWS,
  Interval,
  bootstrap_ratio,
  resampled_ratios,
  wilson,
)


class Paired(NamedTuple):
  """A minus B over the samples that both have.

  Attributes:
    mean_a: mean of A.
    mean_b: mean of B.
    difference: A - B.
    interval: 95% interval of the difference.
    p_value: two-sided, of "no difference".
    num_pairs: samples.
    only_a: samples on which A is higher.
    only_b: samples on which B is higher.
    method: how the interval and the p value were found.
  """

  mean_a: float
  mean_b: float
  difference: float
  interval: Interval
  p_value: float
  num_pairs: int
  only_a: int
  only_b: int
  method: str


def compare_scores(
  a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]
) -> Paired:
  """Compares scores in [0, 1] of the same n samples.

  0/1 scores: exact McNemar test, Newcombe's interval. Fractions: paired
  bootstrap for both.

  Raises:
    ValueError: for no samples, or unequally many.
  """
  left, right = np.asarray(a, np.float64), np.asarray(b, np.float64)
  _check(left, right)
  if not np.isin(np.concatenate([left, right]), (0.0, 1.0)).all():
    return compare_ratios(left, right, np.ones(len(left)))
  wins = int(((left == 1) & (right == 0)).sum())
  losses = int(((left == 0) & (right == 1)).sum())
  both = int(((left == 1) & (right == 1)).sum())
  neither = len(left) - wins - losses - both
  return Paired(
    float(left.mean()),
    float(right.mean()),
    (wins - losses) / len(left),
    paired_interval(both, wins, losses, neither),
    sign_test(wins, losses),
    len(left),
    wins,
    losses,
    "exact McNemar, Newcombe interval",
  )


def compare_ratios(
  a: Float[np.ndarray, " n"],
  b: Float[np.ndarray, " n"],
  counts: Float[np.ndarray, " n"],
  *,
  seed: int = 0,
  draws: int = DRAWS,
) -> Paired:
  """Compares `sum(a) / sum(counts)` with `sum(b) / sum(counts)`.

  Nats over tokens; with counts of 1, means of fractions. Percentile bootstrap
  over the samples for the interval; the p value is the share of resamples,
  drawn about zero, that lie at least as far out as what was seen.

  Raises:
    ValueError: for no samples, or unequally many.
  """
  left, right = np.asarray(a, np.float64), np.asarray(b, np.float64)
  _check(left, right)
  gap, weight = left - right, np.asarray(counts, np.float64)
  seen = float(gap.sum() / weight.sum())
  centred = gap - seen * weight
  null = resampled_ratios(centred, weight, seed=seed, draws=draws)
  # Rounding must not make "as far out" of a resample depend on its order.
  extreme = int((np.abs(null) >= abs(seen) - 1e-12).sum())
  return Paired(
    float(left.sum() / weight.sum()),
    float(right.sum() / weight.sum()),
    seen,
    bootstrap_ratio(gap, weight, seed=seed, draws=draws),
    (1 + extreme) / (1 + draws),
    len(left),
    int((gap > 0).sum()),
    int((gap < 0).sum()),
    "paired bootstrap",
  )


def sign_test(wins: int, losses: int) -> float:
  """Two-sided p value of `wins` against `losses` if both were a fair coin.

  On discordant pairs of 0/1 scores this is McNemar's test in its exact form.
  Ties are left out beforehand; no discordant pair gives 1.

  Raises:
    ValueError: for a negative count.
  """
  if wins < 0 or losses < 0:
    raise ValueError(f"sign_test: {wins}, {losses}: must not be negative")
  trials = wins + losses
  tail = sum(math.comb(trials, k) for k in range(min(wins, losses) + 1))
  return min(1.0, 2 * tail / 2**trials)


def paired_interval(
  both: int, only_a: int, only_b: int, neither: int
) -> Interval:
  """95% interval of the difference of two proportions of the same samples.

  Built from the Wilson intervals of the two and their correlation; not empty
  where the models agree on every sample.

  Args:
    both: samples that both have right.
    only_a: that A alone has right.
    only_b: that B alone has right.
    neither: that none has right.

  Raises:
    ValueError: for no samples.

  Source: R. G. Newcombe, Stat. Med. 17 (1998) 2635-2650, method 10.
  """
  n = both + only_a + only_b + neither
  if n == 0:
    raise ValueError("paired_interval: no samples")
  a, b = (both + only_a) / n, (both + only_b) / n
  low_a, high_a = wilson(both + only_a, n)
  low_b, high_b = wilson(both + only_b, n)
  phi = _correlation(both, only_a, only_b, neither)

  def reach(x: float, y: float) -> float:
    return math.sqrt(max(x * x - 2 * phi * x * y + y * y, 0.0))

  return Interval(
    max(a - b - reach(a - low_a, high_b - b), -1.0),
    min(a - b + reach(high_a - a, b - low_b), 1.0),
  )


def holm(p_values: Sequence[float]) -> list[float]:
  """P values adjusted for how many are looked at, in the same order.

  Source: S. Holm, Scand. J. Stat. 6 (1979) 65-70.
  """
  order = sorted(range(len(p_values)), key=lambda i: p_values[i])
  adjusted, highest = [0.0] * len(p_values), 0.0
  for rank, i in enumerate(order):
    highest = max(highest, min(1.0, (len(order) - rank) * p_values[i]))
    adjusted[i] = highest
  return adjusted


def _correlation(both: int, only_a: int, only_b: int, neither: int) -> float:
  """Phi of the 2 x 2 table, with Newcombe's correction of positive ones."""
  n = both + only_a + only_b + neither
  product = both * neither - only_a * only_b
  if product > 0:
    product = max(product - n / 2, 0.0)
  margins = (
    (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
  )
  return product / math.sqrt(margins) if margins else 0.0


def _check(a: np.ndarray, b: np.ndarray) -> None:
  if len(a) == 0 or len(a) != len(b):
    raise ValueError(f"{len(a)} and {len(b)} scores: need pairs")
