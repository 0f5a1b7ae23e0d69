"""Rotary position embedding, by window-relative or absolute positions, YaRN.

float32 cannot hold `position * frequency` precisely past about a million
tokens. A sliding window needs differences of positions only, so the default
keeps keys unrotated in the cache and rotates both sides by their offset in the
current stretch; the absolute form reproduces what other code bases do.
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

Positions = Int[Array, " T"] | Int[np.ndarray, " T"]

MAX_TABLE = 1 << 20  # angles kept in a program; more are computed in it


class Yarn(NamedTuple):
  """A context longer than that of training (arXiv 2309.00071).

  Attributes:
    factor: how much longer.
    original_length: tokens of training.
    beta_fast: pairs with more turns over `original_length` stay as they are.
    beta_slow: pairs with fewer turn slower by the factor.
    attention_factor: of cosines and sines; 0: `0.1 ln(factor) + 1`.
  """

  factor: float
  original_length: int
  beta_fast: float = 32.0
  beta_slow: float = 1.0
  attention_factor: float = 0.0

  @property
  def amplitude(self) -> float:
    """What cosines and sines are multiplied with."""
    return self.attention_factor or 0.1 * math.log(self.factor) + 1.0


def frequencies(
  head_dim: int, *, theta: float, yarn: Yarn | None = None
) -> Float[np.ndarray, " H_half"]:
  """Radians that each rotary pair turns per token, float64."""
  fast = float(theta) ** -(np.arange(0, head_dim, 2) / head_dim)
  if yarn is None:
    return fast

  def pair_of(turns: float) -> float:
    """The pair that makes so many turns over the original length."""
    per_turn = yarn.original_length / (turns * 2 * math.pi)
    return head_dim * math.log(per_turn) / (2 * math.log(theta))

  low = max(math.floor(pair_of(yarn.beta_fast)), 0)
  high = min(math.ceil(pair_of(yarn.beta_slow)), head_dim - 1)
  width = high - low or 0.001  # a step, where the two meet
  slowed = np.clip((np.arange(head_dim // 2) - low) / width, 0, 1)
  return fast * (1 - slowed) + fast / yarn.factor * slowed


def rope_angles(
  positions: Positions,
  *,
  head_dim: int,
  theta: float,
  yarn: Yarn | None = None,
) -> Float[Array, "T H_half"]:
  """Angle of each rotary pair at each position, in radians, float32."""
  turn = frequencies(head_dim, theta=theta, yarn=yarn).astype(np.float32)
  return jnp.outer(jnp.asarray(positions, jnp.float32), jnp.asarray(turn))


def rotate(
  x: Float[Array, "B T N H"],
  positions: Positions,
  *,
  theta: float,
  yarn: Yarn | None = None,
) -> Float[Array, "B T N H"]:
  """Rotates pairs `(x[i], x[i + H/2])` by the angles of `positions`.

  Positions known when the program is made, as a NumPy array, cost no sines and
  cosines in it: on a CPU these take longer than the rotation.
  """
  cos, sin = _table(positions, x.shape[-1], theta, yarn)
  # Both halves at once, one of them swapped: a loop that vectorises, where
  # joining two computed halves does not.
  cos = cos[None, :, None, None]
  sin = jnp.stack([-sin, sin], axis=1)[None, :, None]
  halves = x.astype(jnp.float32).reshape(*x.shape[:-1], 2, x.shape[-1] // 2)
  rotated = halves * cos + jnp.flip(halves, axis=-2) * sin
  return rotated.reshape(x.shape).astype(x.dtype)


def _table(
  positions: Positions, head_dim: int, theta: float, yarn: Yarn | None
) -> tuple:
  """Cosines and sines `[T, H/2]`, of float32 angles or, if known, exact."""
  known = isinstance(positions, np.ndarray)
  scale = 1.0 if yarn is None else yarn.amplitude
  if not known or positions.size * head_dim // 2 > MAX_TABLE:
    angles = rope_angles(positions, head_dim=head_dim, theta=theta, yarn=yarn)
    return jnp.cos(angles) * scale, jnp.sin(angles) * scale
  exact = np.outer(positions, frequencies(head_dim, theta=theta, yarn=yarn))
  return tuple((f(exact) * scale).astype(np.float32) for f in (np.cos, np.sin))
