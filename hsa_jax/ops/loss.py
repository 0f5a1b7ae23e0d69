"""Cross entropy of next tokens."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def cross_entropy(
  logits: Float[Array, "*lead V"], targets: Int[Array, "*lead"]
) -> Float[Array, "*lead"]:
  """Negative log-likelihood of each target, in nats, float32."""
  logits = logits.astype(jnp.float32)
  log_total = jax.nn.logsumexp(logits, axis=-1)
  picked = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
  return log_total - picked
