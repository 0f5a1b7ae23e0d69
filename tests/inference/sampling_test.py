"""What may be drawn, how often, and that a seed says which."""

import jax.numpy as jnp
import numpy as np
import pytest

from hsa_jax.inference.sampling import (
  Sampling,
  keep_top_k,
  keep_top_p,
  sample,
)

SHARES = np.array([0.1, 0.5, 0.15, 0.25], np.float32)
ALL = [0, 1, 2, 3]
LOGITS = jnp.log(jnp.asarray(SHARES))[None]


def kept(logits) -> list[int]:
  return np.flatnonzero(np.isfinite(np.asarray(logits)[0])).tolist()


@pytest.mark.parametrize(
  ("top_k", "ids"), [(0, ALL), (1, [1]), (3, [1, 2, 3]), (9, ALL)]
)
def test_top_k(top_k, ids):
  assert kept(keep_top_k(LOGITS, top_k)) == ids


@pytest.mark.parametrize(
  ("top_p", "ids"),
  [(0.01, [1]), (0.49, [1]), (0.51, [1, 3]), (0.8, [1, 2, 3]), (1, ALL)],
)
def test_top_p(top_p, ids):
  assert kept(keep_top_p(LOGITS, top_p)) == ids


def test_draws_follow_the_probabilities():
  rows = jnp.tile(LOGITS, (20_000, 1))
  how = Sampling(temperature=1.0, seed=3)
  counts = np.bincount(np.asarray(sample(rows, 7, how)), minlength=4)
  np.testing.assert_allclose(counts / 20_000, SHARES, atol=0.015)
  sharper = np.asarray(sample(rows, 7, how._replace(temperature=0.5)))
  want = SHARES**2 / np.sum(SHARES**2)
  np.testing.assert_allclose(
    np.bincount(sharper, minlength=4) / 20_000, want, atol=0.015
  )


def test_a_draw_is_a_function_of_seed_and_position():
  rows = jnp.zeros((8, 50))
  how = Sampling(temperature=1.0, seed=1)
  first = np.asarray(sample(rows, 5, how))
  np.testing.assert_array_equal(first, sample(rows, 5, how))
  assert (first != np.asarray(sample(rows, 6, how))).any()
  assert (first != np.asarray(sample(rows, 5, how._replace(seed=2)))).any()
  assert len(set(first.tolist())) > 1  # rows draw by themselves


def test_greedy_takes_the_largest():
  assert np.asarray(sample(LOGITS, 0, Sampling())).tolist() == [1]
  sure = Sampling(temperature=5.0, top_k=1)
  assert np.asarray(sample(LOGITS, 0, sure)).tolist() == [1]


@pytest.mark.parametrize(
  "how",
  [Sampling(temperature=-1.0), Sampling(top_k=-1), Sampling(top_p=0.0)],
)
def test_settings_out_of_range(how):
  with pytest.raises(ValueError, match="must not be negative"):
    sample(LOGITS, 0, how)
