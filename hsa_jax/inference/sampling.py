"""From logits to the next token: greedy, or drawn with a seed."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


class Sampling(NamedTuple):
  """How the next token is chosen; the filters apply in this order.

  Attributes:
    temperature: divides the logits; 0 takes the most likely token.
    top_k: only the `top_k` most likely tokens; 0: all.
    top_p: only the fewest most likely tokens that together hold this share of
      the probability; 1: all.
    seed: of the draws. A token is a function of logits, seed and position.
  """

  temperature: float = 0.0
  top_k: int = 0
  top_p: float = 1.0
  seed: int = 0


GREEDY = Sampling()


def sample(
  logits: Float[Array, "B V"], position: int, how: Sampling
) -> Int[Array, " B"]:
  """The token of each row that follows after `position` tokens.

  Raises:
    ValueError: for a setting out of its range.
  """
  if how.temperature < 0 or how.top_k < 0 or not 0 < how.top_p <= 1:
    raise ValueError(
      f"{how}: temperature and top_k must not be negative, top_p must lie in"
      " (0, 1]"
    )
  if how.temperature == 0:
    return _greedy(logits)
  return _draw(
    logits,
    jax.random.key(how.seed),
    np.int32(position),
    np.float32(how.temperature),
    np.float32(how.top_p),
    top_k=how.top_k,
  )


@jax.jit
def _greedy(logits: Array) -> Array:
  return jnp.argmax(logits, axis=-1).astype(jnp.int32)


@functools.partial(jax.jit, static_argnames="top_k")
def _draw(
  logits: Array,
  key: Array,
  position: Array,
  temperature: Array,
  top_p: Array,
  *,
  top_k: int,
) -> Array:
  logits = keep_top_p(keep_top_k(logits / temperature, top_k), top_p)
  key = jax.random.fold_in(key, position)
  return jax.random.categorical(key, logits).astype(jnp.int32)


def keep_top_k(logits: Float[Array, "B V"], top_k: int) -> Float[Array, "B V"]:
  """-inf but for the `top_k` largest, and what equals the last of them."""
  if top_k == 0 or top_k >= logits.shape[-1]:
    return logits
  least = jax.lax.top_k(logits, top_k)[0][:, -1:]
  return jnp.where(logits < least, -jnp.inf, logits)


def keep_top_p(
  logits: Float[Array, "B V"], top_p: Float[Array, ""] | float
) -> Float[Array, "B V"]:
  """-inf but for the smallest set of tokens whose share reaches `top_p`."""
  ordered = jnp.sort(logits, axis=-1, descending=True)
  share = jax.nn.softmax(ordered, axis=-1)
  # A token stays if those before it do not hold the share yet: the first does.
  before = jnp.cumulative_sum(share, axis=-1) - share
  kept = jnp.where(before < top_p, ordered, jnp.inf)
  least = jnp.min(kept, axis=-1, keepdims=True)
  return jnp.where((logits < least) & (top_p < 1), -jnp.inf, logits)
