"""Rotary position embedding, by window-relative or absolute positions.

float32 cannot hold `position * frequency` precisely past about a million
tokens. A sliding window needs differences of positions only, so the default
keeps keys unrotated in the cache and rotates both sides by their offset in the
current stretch; the absolute form reproduces what other code bases do.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

Positions = Int[Array, " T"] | Int[np.ndarray, " T"]

MAX_TABLE = 1 << 20  # angles kept in a program; more are computed in it


def rope_angles(
  positions: Positions, *, head_dim: int, theta: float
) -> Float[Array, "T H_half"]:
  """Angle of each rotary pair at each position, in radians, float32."""
  exponents = jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim
  return jnp.outer(jnp.asarray(positions, jnp.float32), theta ** (-exponents))


def rotate(
  x: Float[Array, "B T N H"], positions: Positions, *, theta: float
) -> Float[Array, "B T N H"]:
  """Rotates pairs `(x[i], x[i + H/2])` by the angles of `positions`.

  Positions known when the program is made, as a NumPy array, cost no sines and
  cosines in it: on a CPU these take longer than the rotation.
  """
  cos, sin = _table(positions, x.shape[-1], theta)
  # Both halves at once, one of them swapped: a loop that vectorises, where
  # joining two computed halves does not.
  cos = cos[None, :, None, None]
  sin = jnp.stack([-sin, sin], axis=1)[None, :, None]
  halves = x.astype(jnp.float32).reshape(*x.shape[:-1], 2, x.shape[-1] // 2)
  rotated = halves * cos + jnp.flip(halves, axis=-2) * sin
  return rotated.reshape(x.shape).astype(x.dtype)


def _table(positions: Positions, head_dim: int, theta: float) -> tuple:
  """Cosines and sines `[T, H/2]`, of float32 angles or, if known, exact."""
  known = isinstance(positions, np.ndarray)
  if not known or positions.size * head_dim // 2 > MAX_TABLE:
    angles = rope_angles(positions, head_dim=head_dim, theta=theta)
    return jnp.cos(angles), jnp.sin(angles)
  exponents = np.arange(0, head_dim, 2) / head_dim
  exact = np.outer(positions, float(theta) ** -exponents)
  return tuple(f(exact).astype(np.float32) for f in (np.cos, np.sin))
