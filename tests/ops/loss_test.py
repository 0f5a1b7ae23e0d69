"""Cross entropy and rank of targets."""

import jax.numpy as jnp
import numpy as np

from hsa_jax.ops.loss import cross_entropy, ranked_first

LOGITS = jnp.log(jnp.asarray([[0.5, 0.25, 0.25], [0.2, 0.4, 0.4]]))


def test_cross_entropy_literal():
  got = cross_entropy(LOGITS, jnp.asarray([0, 0]))
  np.testing.assert_allclose(got, [np.log(2), np.log(5)], rtol=1e-6)


def test_ranked_first_counts_ties():
  for targets, expected in (
    ([0, 0], [True, False]),
    ([1, 1], [False, True]),
    ([2, 2], [False, True]),
  ):
    got = ranked_first(LOGITS, jnp.asarray(targets))
    assert got.tolist() == expected
