"""What recurrent layers share: a sequence as chunks, and the tail of it.

A recurrence is computed chunk by chunk: inside a chunk by matrix products, from
one to the next by its state. The derivative of a chunk is made from its inputs
and the state before it, so that memory is linear in the length.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def scan_chunks(
  body: Callable[[jax.Array, tuple[jax.Array, ...]], tuple[jax.Array, Any]],
  state: jax.Array,
  tokens: tuple[jax.Array, ...],
  *,
  chunk: int,
) -> tuple[jax.Array, jax.Array]:
  """Runs `body(state, chunk of each array) -> (state, out)` over a sequence.

  Args:
    body: one chunk; `out` is `[B Q ...]`.
    state: before the first token.
    tokens: arrays `[B T ...]`; filled up with zeros to whole chunks, which
      `body` must not count.
    chunk: Q, tokens of a chunk.

  Returns:
    Outputs `[B T ...]` and the state after the last token.
  """
  length = tokens[0].shape[1]
  size = min(chunk, length)
  cut = tuple(_chunks(x, size) for x in tokens)
  state, out = lax.scan(jax.checkpoint(body), state, cut)
  out = jnp.moveaxis(out, 0, 1)
  return out.reshape(out.shape[0], -1, *out.shape[3:])[:, :length], state


def _chunks(x: Float[Array, "B T ..."], size: int) -> jax.Array:
  """[B T ...] -> [C B Q ...]."""
  missing = -x.shape[1] % size
  if missing:
    x = jnp.pad(x, ((0, 0), (0, missing), *((0, 0),) * (x.ndim - 2)))
  x = x.reshape(x.shape[0], -1, size, *x.shape[2:])
  return jnp.moveaxis(x, 1, 0)


def real_tokens(
  length: int, count: jax.Array | int | None
) -> Float[Array, " T"] | None:
  """1 for the leading `count` tokens and 0 for filling; None: no filling."""
  if count is None:
    return None
  return (jnp.arange(length) < count).astype(jnp.float32)


def causal_conv(
  x: Float[Array, "B T F"],
  taps: Float[Array, "K F"],
  bias: Float[Array, " F"],
  tail: Float[Array, "B p F"],
  *,
  count: jax.Array | int | None = None,
) -> tuple[Float[Array, "B T F"], Float[Array, "B p F"]]:
  """A filter over time for each channel: `bias + sum_k taps_k x_(t-K+1+k)`.

  Args:
    x: channels of a stretch.
    taps: the last one is multiplied with the token's own value.
    bias: added to every token.
    tail: the K - 1 values before the stretch; zeros at the beginning.
    count: leading tokens that are real, the rest is filling; None: all.

  Returns:
    The filtered stretch and the tail of its real tokens, both like `x`.
  """
  length, width = x.shape[1], taps.shape[0]
  padded = jnp.concatenate([tail, x], axis=1)
  taps, bias = taps.astype(x.dtype), bias.astype(x.dtype)
  out = jnp.broadcast_to(bias, x.shape)
  for k in range(width):
    shifted = lax.slice_in_dim(padded, k, k + length, axis=1)
    out = out + shifted * jnp.broadcast_to(taps[k], x.shape)
  last = length if count is None else count
  return out, lax.dynamic_slice_in_dim(padded, last, width - 1, axis=1)
