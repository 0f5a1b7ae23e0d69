"""How much of a token's read each selected chunk gets.

Rules (config `model.hsa.weighting`), on scores s in nearest-first order:

  stick_breaking  w_k = sigmoid(s_k) * prod_{j<k} (1 - sigmoid(s_j)); the sum
                  stays below 1, what is left reads nothing
  softmax         over the valid slots
  softmax_decay   softmax of s_k + slope * k, `slope` learned, k the rank
  mass            by attention mass: the read computes it; scores are dropped
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hsa_jax.types import Selection


def stick_breaking(selection: Selection) -> Float[Array, "B T G K"]:
  """`exp(-softplus(-s_k) - sum_{j<k} softplus(s_j))`, 0 in invalid slots.

  The sum leaves out slot k: a large `s_k` would round away the digits of those
  before it, and weights would sum to more than 1.
  """
  score = jnp.where(selection.valid, selection.score, 0.0)
  spent = jnp.where(selection.valid, jax.nn.softplus(score), 0.0)
  before = jnp.cumulative_sum(spent, axis=-1, include_initial=True)[..., :-1]
  log_weight = -jax.nn.softplus(-score) - before
  return jnp.where(selection.valid, jnp.exp(log_weight), 0.0)


def softmax(
  selection: Selection, slope: Float[Array, ""] | None = None
) -> Float[Array, "B T G K"]:
  """Softmax over valid slots; a row without any is 0 everywhere."""
  score = jnp.where(selection.valid, selection.score, 0.0)
  if slope is not None:
    rank = jnp.arange(score.shape[-1], dtype=jnp.float32)
    score = score + slope * rank[None, None, None]
  # Invalid slots are masked before and after, so that no -inf reaches a
  # gradient even where every slot of a row is invalid.
  top = jnp.max(jnp.where(selection.valid, score, -1e30), -1, keepdims=True)
  top = jax.lax.stop_gradient(jnp.maximum(top, -1e29))
  above = jnp.where(selection.valid, score - top, 0.0)  # exp stays finite
  mass = jnp.where(selection.valid, jnp.exp(above), 0.0)
  total = jnp.sum(mass, axis=-1, keepdims=True)
  return mass / jnp.where(total > 0, total, 1.0)


def chunk_weights(
  selection: Selection,
  rule: str,
  *,
  slope: Float[Array, ""] | None = None,
) -> Float[Array, "B T G K"] | None:
  """Weights of the selected chunks, float32.

  Args:
    selection: chunks in nearest-first order.
    rule: stick_breaking | softmax | softmax_decay | mass.
    slope: the learned scalar of softmax_decay.

  Returns:
    [B T G K], or None for `mass`, which the read derives from its logits.

  Raises:
    ValueError: for an unknown rule, or softmax_decay without a slope.

  Source: arXiv 2510.17196 eq. 1a-1c; positional decay: arXiv 2511.23319.
  """
  if rule == "stick_breaking":
    return stick_breaking(selection)
  if rule == "softmax":
    return softmax(selection)
  if rule == "softmax_decay":
    if slope is None:
      raise ValueError("softmax_decay needs its learned slope")
    return softmax(selection, slope)
  if rule == "mass":
    return None
  raise ValueError(
    f"weighting {rule!r}: use stick_breaking, softmax, softmax_decay or mass"
  )
