"""The softmax against JAX's own: values, gradients, parts, sink."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hsa_jax.ops.softmax import joint_softmax, softmax

LOGITS = 4.0 * jax.random.normal(jax.random.key(0), (3, 2, 7))
TARGET = jax.random.normal(jax.random.key(1), LOGITS.shape)


def plain(logits, sink):
  """Softmax beside `sink` more logits of zero, and the log of its sum."""
  zeros = jnp.zeros((*logits.shape[:-1], sink))
  wide = jnp.concatenate([logits, zeros], axis=-1)
  kept = jax.nn.softmax(wide, axis=-1)[..., : logits.shape[-1]]
  return kept, jax.nn.logsumexp(wide, axis=-1)


@pytest.mark.parametrize("sink", [0, 1])
def test_values_and_gradients_equal_the_plain_form(sink):
  def loss(function, logits):
    shares, mass = function(logits)
    return jnp.sum(shares * TARGET) + jnp.sum(mass**2)

  def own(logits):
    return softmax(logits, sink=sink)

  def expected(logits):
    return plain(logits, sink)

  for got, want in zip(own(LOGITS), expected(LOGITS), strict=True):
    np.testing.assert_allclose(got, want, rtol=2e-6, atol=1e-7)
  got = jax.grad(lambda x: loss(own, x))(LOGITS)
  want = jax.grad(lambda x: loss(expected, x))(LOGITS)
  np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-6)


def test_second_derivatives():
  def curvature(function):
    def loss(logits):
      return jnp.sum(function(logits)[0] * TARGET)

    return jax.grad(lambda x: jnp.sum(jax.grad(loss)(x) ** 2))(LOGITS)

  want = curvature(lambda x: plain(x, 0))
  np.testing.assert_allclose(curvature(softmax), want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("cut", [1, 3, 6])
def test_parts_of_any_length_equal_the_whole(cut):
  def joint(logits):
    parts = joint_softmax([logits[..., :cut], logits[..., cut:]])
    return jnp.concatenate(parts, axis=-1)

  whole, _ = plain(LOGITS, 0)
  np.testing.assert_allclose(joint(LOGITS), whole, rtol=2e-6, atol=1e-7)
  got = jax.grad(lambda x: jnp.sum(joint(x) * TARGET))(LOGITS)
  want = jax.grad(lambda x: jnp.sum(plain(x, 0)[0] * TARGET))(LOGITS)
  np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-6)


def test_extreme_logits_stay_finite():
  logits = jnp.asarray([[-1e30, -1e30], [1e4, -1e4], [-1e30, 80.0]])
  shares, mass = softmax(logits)
  np.testing.assert_allclose(shares, [[0.5, 0.5], [1, 0], [0, 1]])
  assert bool(jnp.isfinite(mass).all())
  gradient = jax.grad(lambda x: jnp.sum(softmax(x, sink=1)[0] ** 2))(logits)
  assert bool(jnp.isfinite(gradient).all())
