"""T2: sums, product form, closed-form gradients, rows without any chunk."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hsa_jax.ops import reference, weights
from tests.ops.cases import random_selection

RULES = ("stick_breaking", "softmax", "softmax_decay")


def selection(scale=1.0):
  made = random_selection(np.random.default_rng(3), (2, 6, 2), 9, 4)
  return made._replace(score=made.score * scale)


def weigh(found, rule):
  slope = jnp.float32(-0.7) if rule == "softmax_decay" else None
  return weights.chunk_weights(found, rule, slope=slope)


@pytest.mark.parametrize("scale", [1.0, 50.0])
@pytest.mark.parametrize("rule", RULES)
def test_sums_and_invalid_slots(rule, scale):
  found = selection(scale)
  got = weigh(found, rule)
  total = got.sum(-1)
  some = found.valid.any(-1)
  assert bool((got[~found.valid] == 0).all())
  assert bool((total[~some] == 0).all())
  assert bool((total <= 1 + 1e-6).all())
  if rule != "stick_breaking":
    np.testing.assert_allclose(total[some], 1.0, rtol=1e-6)


def test_stick_breaking_is_the_product_form():
  found = selection()
  np.testing.assert_allclose(
    weights.stick_breaking(found), reference.stick_breaking(found), atol=1e-6
  )


def test_stick_breaking_gradient_closed_form():
  """dL/ds_k = c_k - sigmoid(s_k) * sum_{j>=k} c_j with c_j = w_j dL/dw_j."""
  found = selection()
  found = found._replace(
    valid=jnp.ones_like(found.valid),
    score=jnp.where(found.valid, found.score, 0.3),
  )
  upstream = jnp.sin(jnp.arange(found.score.size).reshape(found.score.shape))

  def loss(score):
    made = weights.stick_breaking(found._replace(score=score))
    return jnp.sum(made * upstream)

  share = weights.stick_breaking(found) * upstream
  later = jnp.cumsum(share[..., ::-1], axis=-1)[..., ::-1]
  expected = share - jax.nn.sigmoid(found.score) * later
  np.testing.assert_allclose(jax.grad(loss)(found.score), expected, atol=1e-5)


def test_softmax_gradient_closed_form():
  found = selection()
  upstream = jnp.cos(jnp.arange(found.score.size).reshape(found.score.shape))

  def loss(score):
    return jnp.sum(weights.softmax(found._replace(score=score)) * upstream)

  share = weights.softmax(found)
  mean = jnp.sum(share * upstream, axis=-1, keepdims=True)
  np.testing.assert_allclose(
    jax.grad(loss)(found.score), share * (upstream - mean), atol=1e-6
  )


@pytest.mark.parametrize("rule", RULES)
def test_gradients_are_finite_and_zero_in_invalid_slots(rule):
  found = selection(100.0)

  def loss(score):
    return jnp.sum(weigh(found._replace(score=score), rule) ** 2)

  gradient = jax.grad(loss)(found.score)
  assert bool(jnp.isfinite(gradient).all())
  assert bool((gradient[~found.valid] == 0).all())


def test_decay_prefers_near_chunks():
  found = selection()
  found = found._replace(
    valid=jnp.ones_like(found.valid), score=jnp.zeros_like(found.score)
  )
  got = weigh(found, "softmax_decay")[0, 0, 0]
  np.testing.assert_allclose(
    got, jax.nn.softmax(-0.7 * jnp.arange(4.0)), rtol=1e-6
  )


def test_mass_leaves_the_weights_to_the_read():
  assert weights.chunk_weights(selection(), "mass") is None


def test_unknown_rule_is_an_error():
  with pytest.raises(ValueError, match="use stick_breaking"):
    weights.chunk_weights(selection(), "hard")
  with pytest.raises(ValueError, match="slope"):
    weights.chunk_weights(selection(), "softmax_decay")
