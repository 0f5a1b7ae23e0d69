"""Rotation by absolute positions: of full layers, of reads that have any."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hsa_jax.config import ModelConfig, RopeConfig
from hsa_jax.ops import rope


def rotate_absolute(
  cfg: ModelConfig, x: Float[Array, "B T N H"], position: jax.Array | int
) -> Float[Array, "B T N H"]:
  """Queries or keys of consecutive tokens, the first of them at `position`.

  Each side is rotated once, wherever keys are kept then; a score depends on the
  distance from query to key. Angles are float32 where the position is traced:
  precise to about a million tokens.
  """
  offset: Any = np.arange(x.shape[1])
  if not isinstance(position, int):
    offset = jnp.asarray(offset)
  return rope.rotate(
    x,
    offset + position,
    theta=cfg.rope.theta or cfg.rope_theta,
    yarn=yarn_of(cfg.rope),
  )


def yarn_of(cfg: RopeConfig) -> rope.Yarn | None:
  """The scaling that the configuration asks for, if any."""
  if cfg.factor <= 1:
    return None
  return rope.Yarn(
    cfg.factor,
    cfg.original_length,
    cfg.beta_fast,
    cfg.beta_slow,
    cfg.attention_factor,
  )
