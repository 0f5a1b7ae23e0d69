"""Recurrent layers token by token: what `ops.ssd` and `ops.gla` must equal.

Slow on purpose, as `ops/reference.py` is.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def ssd(
  value: Float[Array, "B T N P"],
  step: Float[Array, "B T N"],
  slope: Float[Array, " N"],
  key: Float[Array, "B T G Z"],
  query: Float[Array, "B T G Z"],
  state: Float[Array, "B N P Z"],
) -> tuple[Float[Array, "B T N P"], Float[Array, "B N P Z"]]:
  """`S = exp(-step slope) S + step value key^T`, `y = S query`."""
  share = value.shape[2] // key.shape[2]
  key, query = (jnp.repeat(x, share, axis=2) for x in (key, query))

  def advance(state: jax.Array, token: tuple) -> tuple:
    value, step, key, query = token
    decay = jnp.exp(-step * slope[None])[..., None, None]
    new = (step[..., None] * value)[..., None] * key[:, :, None]
    state = decay * state + new
    return state, jnp.einsum("bnpz,bnz->bnp", state, query)

  tokens = [jnp.moveaxis(x, 1, 0) for x in (value, step, key, query)]
  state, out = lax.scan(advance, state, tuple(tokens))
  return jnp.moveaxis(out, 0, 1), state


def gla(
  query: Float[Array, "B T N Z"],
  key: Float[Array, "B T N Z"],
  value: Float[Array, "B T N P"],
  log_decay: Float[Array, "B T N Z"],
  state: Float[Array, "B N Z P"],
) -> tuple[Float[Array, "B T N P"], Float[Array, "B N Z P"]]:
  """`S = diag(exp(log_decay)) S + key value^T`, `y = S^T query / sqrt(Z)`."""

  def advance(state: jax.Array, token: tuple) -> tuple:
    query, key, value, log_decay = token
    new = key[..., None] * value[:, :, None]
    state = jnp.exp(log_decay)[..., None] * state + new
    return state, jnp.einsum("bnzp,bnz->bnp", state, query)

  query = query * query.shape[-1] ** -0.5
  tokens = [jnp.moveaxis(x, 1, 0) for x in (query, key, value, log_decay)]
  state, out = lax.scan(advance, state, tuple(tokens))
  return jnp.moveaxis(out, 0, 1), state


def conv(
  x: Float[Array, "B T F"],
  taps: Float[Array, "K F"],
  bias: Float[Array, " F"],
  tail: Float[Array, "B p F"],
) -> Float[Array, "B T F"]:
  """`y_t = bias + sum_k taps_k x_(t - K + 1 + k)`, the tail before `x`."""
  padded = jnp.concatenate([tail, x], axis=1)
  rows = []
  for t in range(x.shape[1]):
    seen = padded[:, t : t + taps.shape[0]]
    rows.append(bias[None] + jnp.sum(seen * taps[None], axis=1))
  return jnp.stack(rows, axis=1)
