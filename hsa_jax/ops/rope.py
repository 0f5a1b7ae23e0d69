"""Rotary position embedding, by window-relative or absolute positions.

float32 cannot hold `position * frequency` precisely past about a million
tokens. A sliding window needs differences of positions only, so the default
keeps keys unrotated in the cache and rotates both sides by their offset in the
current stretch; the absolute form reproduces what other code bases do.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def rope_angles(
  positions: Int[Array, " T"], *, head_dim: int, theta: float
) -> Float[Array, "T H_half"]:
  """Angle of each rotary pair at each position, in radians, float32."""
  exponents = jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim
  return jnp.outer(positions.astype(jnp.float32), theta ** (-exponents))


def rotate(
  x: Float[Array, "B T N H"], positions: Int[Array, " T"], *, theta: float
) -> Float[Array, "B T N H"]:
  """Rotates pairs `(x[i], x[i + H/2])` by the angles of `positions`."""
  angles = rope_angles(positions, head_dim=x.shape[-1], theta=theta)
  cos, sin = jnp.cos(angles)[None, :, None], jnp.sin(angles)[None, :, None]
  first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  rotated = (first * cos - second * sin, second * cos + first * sin)
  return jnp.concatenate(rotated, axis=-1).astype(x.dtype)
