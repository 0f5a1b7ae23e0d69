"""Scores and their uncertainty."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

Z_95 = 1.959963984540054  # normal quantile of a two-sided 95% interval
DRAWS = 10_000  # resamples of a bootstrap over scores
_BLOCK = 1 << 20  # random indices held at a time


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
  ratios = resampled_ratios(top, bottom, seed=seed, draws=draws)
  low, high = np.percentile(ratios, [2.5, 97.5])
  return Interval(float(low), float(high))


def resampled_ratios(
  numerators: Float[np.ndarray, " n"],
  denominators: Float[np.ndarray, " n"],
  *,
  seed: int,
  draws: int,
) -> Float[np.ndarray, " draws"]:
  """`sum(numerators) / sum(denominators)` of n items drawn with replacement.

  The draws come from one stream, so blocks of any size give the same numbers.
  """
  rng = np.random.Generator(np.random.Philox(seed))
  count, parts, left = len(numerators), [], draws
  while left:
    rows = min(left, max(_BLOCK // count, 1))
    pick = rng.integers(count, size=(rows, count))
    parts.append(numerators[pick].sum(axis=1) / denominators[pick].sum(axis=1))
    left -= rows
  return np.concatenate(parts)


def bootstrap_mean(
  values: Float[np.ndarray, " n"], *, seed: int = 0, draws: int = DRAWS
) -> Interval:
  """95% percentile bootstrap interval of a mean over n samples.

  Equal values give an empty interval; `score_interval` is the one to print.

  Raises:
    ValueError: for no values.
  """
  ones = np.ones(len(values))
  return bootstrap_ratio(np.asarray(values), ones, seed=seed, draws=draws)


def cluster_bootstrap_mean(
  values: Float[np.ndarray, " n"],
  clusters: Int[np.ndarray, " n"],
  *,
  seed: int = 0,
  draws: int = DRAWS,
) -> Interval:
  """As `bootstrap_mean`, but whole clusters are drawn.

  For questions that share a haystack, whose answers are not independent.

  Args:
    values: one score per question.
    clusters: name of the haystack each belongs to; any integers.
    seed: of the draws.
    draws: number of resamples.

  Raises:
    ValueError: for no values.
  """
  _, member = np.unique(np.asarray(clusters), return_inverse=True)
  sums = np.bincount(member, weights=np.asarray(values, np.float64))
  sizes = np.bincount(member).astype(np.float64)
  return bootstrap_ratio(sums, sizes, seed=seed, draws=draws)


def score_interval(values: Float[np.ndarray, " n"]) -> Interval:
  """95% interval of the mean of scores in [0, 1]: what tables print.

  Wilson where all scores are 0 or 1, so that 20 of 20 is not a bare 1.00;
  the bootstrap with seed 0 otherwise. Nothing is known of no scores: [0, 1].

  Raises:
    ValueError: for a score outside [0, 1].
  """
  array = np.asarray(values, np.float64)
  if not ((array >= 0) & (array <= 1)).all():
    raise ValueError("score_interval: scores must be in 0..1")
  if np.isin(array, (0.0, 1.0)).all():
    return wilson(int(array.sum()), len(array))
  return bootstrap_mean(array)


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
