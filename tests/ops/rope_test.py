"""T8: relative and absolute rotation agree near 0 and part far out."""

import jax
import jax.numpy as jnp
import numpy as np

from hsa_jax.ops import rope


def logits(positions):
  query, key = jax.random.normal(jax.random.key(0), (2, 1, 8, 1, 16))
  query = rope.rotate(query, positions, theta=1e4)
  key = rope.rotate(key, positions, theta=1e4)
  return jnp.einsum("btnh,bunh->tu", query, key)


def test_logits_depend_on_distance_only():
  near, far = logits(jnp.arange(8)), logits(jnp.arange(8) + 1000)
  np.testing.assert_allclose(near, far, atol=2e-3)


def test_absolute_angles_are_wrong_beyond_2_to_the_24():
  near, far = logits(jnp.arange(8)), logits(jnp.arange(8) + 2**24)
  assert float(jnp.abs(near - far).max()) > 0.1


def test_rotation_keeps_length_and_position_zero():
  x = jax.random.normal(jax.random.key(1), (1, 5, 2, 8))
  turned = rope.rotate(x, jnp.arange(5), theta=1e4)
  np.testing.assert_allclose(
    jnp.linalg.norm(turned, axis=-1), jnp.linalg.norm(x, axis=-1), rtol=1e-5
  )
  np.testing.assert_allclose(turned[:, 0], x[:, 0], atol=1e-6)


def test_rotate_half_layout():
  x = jnp.array([1.0, 0.0, 0.0, 0.0])[None, None, None]
  got = rope.rotate(x, jnp.array([1]), theta=1e4)[0, 0, 0]
  np.testing.assert_allclose(got, [np.cos(1), 0, np.sin(1), 0], atol=1e-6)
