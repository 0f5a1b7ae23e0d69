"""Numbers that change over the steps of a run: learning rate, K and W."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from hsa_jax.config import OptimizerConfig, Schedule


def learning_rate(cfg: OptimizerConfig, num_steps: int) -> optax.Schedule:
  """Linear warm-up, then a cosine to `final_learning_rate_ratio`.

  Step 0 already learns, at `1 / warmup_steps` of the peak, and the last step
  is exactly at the final ratio.

  Args:
    cfg: peak, warm-up and final ratio.
    num_steps: steps of the whole run, all stages together.

  Returns:
    A function from the step, int or int32[], to the rate, float32[].
  """
  decay_steps = max(num_steps - cfg.warmup_steps, 1)

  def schedule(step: ArrayLike) -> Float[Array, ""]:
    done = jnp.asarray(step, jnp.float32) + 1.0
    warm = done / max(cfg.warmup_steps, 1)
    part = jnp.clip((done - cfg.warmup_steps) / decay_steps, 0.0, 1.0)
    cosine = 0.5 * (1.0 + jnp.cos(jnp.pi * part))
    low = cfg.final_learning_rate_ratio
    after = low + (1.0 - low) * cosine
    factor = jnp.where(done < cfg.warmup_steps, warm, after)
    return cfg.learning_rate * factor

  return schedule


def value_at(
  schedule: Schedule, step: Int[Array, ""] | int
) -> jax.Array | None:
  """The value in force at `step`, int32[]; None for an empty schedule.

  The step may be traced: a change of value is not a change of program.
  """
  if not schedule:
    return None
  starts = np.asarray([start for start, _ in schedule], np.int32)
  values = np.asarray([value for _, value in schedule], np.int32)
  slot = jnp.searchsorted(jnp.asarray(starts), step, side="right") - 1
  return jnp.asarray(values)[jnp.maximum(slot, 0)]
