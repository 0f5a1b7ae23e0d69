"""Scores and their uncertainty."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

Z_95 = 1.959963984540054  # normal quantile of a two-sided 95% interval


class Interval(NamedTuple):
  """A 95% interval."""

  low: float
  high: float


def wilson(successes: int, trials: int, *, z: float = Z_95) -> Interval:
  """Wilson score interval of a proportion.

  Unlike the normal approximation it stays inside [0, 1] and is not empty at 0
  or `trials` successes: 20 of 20 gives [0.839, 1].

  Args:
    successes: correct samples.
    trials: samples; 0 gives [0, 1].
    z: normal quantile.

  Raises:
    ValueError: unless 0 <= successes <= trials.

  Source: E. B. Wilson, JASA 22 (1927) 209-212.
  """
  if not 0 <= successes <= trials:
    raise ValueError(f"successes = {successes}: must be in 0..{trials}")
  if trials == 0:
    return Interval(0.0, 1.0)
  share, square = successes / trials, z * z / trials
  centre = share + square / 2
  spread = z * math.sqrt(share * (1 - share) / trials + square / trials / 4)
  # At the ends the bound is exact; rounding must not move it past 0 or 1.
  low = 0.0 if successes == 0 else (centre - spread) / (1 + square)
  high = 1.0 if successes == trials else (centre + spread) / (1 + square)
  return Interval(low, high)


def bootstrap_ratio(
  numerators: Float[np.ndarray, " n"],
  denominators: Float[np.ndarray, " n"],
  *,
  seed: int = 0,
  draws: int = 2_000,
) -> Interval:
  """95% interval of `sum(numerators) / sum(denominators)` over documents.

  Percentile bootstrap over the n documents; the same seed gives the same
  interval. One document gives an empty interval at its own ratio.

  Raises:
    ValueError: for no documents or a denominator that is not positive.
  """
  top = np.asarray(numerators, np.float64)
  bottom = np.asarray(denominators, np.float64)
  if len(top) == 0 or not (bottom > 0).all():
    raise ValueError("bootstrap_ratio: needs documents with positive counts")
  rng = np.random.Generator(np.random.Philox(seed))
  pick = rng.integers(len(top), size=(draws, len(top)))
  ratios = top[pick].sum(axis=1) / bottom[pick].sum(axis=1)
  low, high = np.percentile(ratios, [2.5, 97.5])
  return Interval(float(low), float(high))


def exact_match(
  predicted: Int[np.ndarray, " n"], gold: Int[np.ndarray, " n"]
) -> bool:
  """Whether every answer token is right; an empty answer is an error.

  With the gold answer fed back, all tokens right is the same event as greedy
  decoding producing the answer.
  """
  if len(gold) == 0 or len(predicted) != len(gold):
    raise ValueError(
      f"exact_match: {len(predicted)} predicted for {len(gold)} gold tokens"
    )
  return bool((np.asarray(predicted) == np.asarray(gold)).all())


def share(part: float, whole: float) -> float | None:
  """`part / whole`, or None where there is nothing to divide by."""
  return part / whole if whole else None
