"""Cross entropy and rank of next tokens."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def cross_entropy(
  logits: Float[Array, "*lead V"], targets: Int[Array, "*lead"]
) -> Float[Array, "*lead"]:
  """Negative log-likelihood of each target, in nats, float32."""
  logits = logits.astype(jnp.float32)
  log_total = jax.nn.logsumexp(logits, axis=-1)
  return log_total - _of_target(logits, targets)


def ranked_first(
  logits: Float[Array, "*lead V"], targets: Int[Array, "*lead"]
) -> Bool[Array, "*lead"]:
  """Whether no logit exceeds the target's: cheaper than an argmax."""
  return _of_target(logits, targets) >= jnp.max(logits, axis=-1)


def _of_target(logits: jax.Array, targets: jax.Array) -> jax.Array:
  return jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
