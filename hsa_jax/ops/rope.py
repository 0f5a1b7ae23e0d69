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
  cos, sin = jnp.cos(angles), jnp.sin(angles)
  # Both halves at once, one of them swapped: a loop that vectorises, where
  # joining two computed halves does not.
  cos = jnp.stack([cos, cos], axis=1)[None, :, None]
  sin = jnp.stack([-sin, sin], axis=1)[None, :, None]
  halves = x.astype(jnp.float32).reshape(*x.shape[:-1], 2, x.shape[-1] // 2)
  rotated = halves * cos + jnp.flip(halves, axis=-2) * sin
  return rotated.reshape(x.shape).astype(x.dtype)
