"""Mamba-2's recurrence by matrix products (SSD, arXiv 2405.21060).

    S_t = exp(-d_t a) S_(t-1) + d_t x_t B_t^T        y_t = S_t C_t

with one state `[P Z]` per head, a positive slope `a` per head and a step `d`
per head and token; heads of a group share B (key) and C (query). Inside a
chunk, with c the sum of -d a up to and including a token,

    y_l = exp(c_l) S C_l + sum_(s <= l) (C_l B_s) exp(c_l - c_s) d_s x_s

Decays are float32 sums of logarithms, and only differences that are not
positive are ever exponentiated: masked before, not after, since the derivative
of an overflow that is thrown away is not a number.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hsa_jax.ops.chunked import real_tokens, scan_chunks


def ssd(
  value: Float[Array, "B T N P"],
  step: Float[Array, "B T N"],
  slope: Float[Array, " N"],
  key: Float[Array, "B T G Z"],
  query: Float[Array, "B T G Z"],
  state: Float[Array, "B N P Z"],
  *,
  chunk: int,
  count: jax.Array | int | None = None,
) -> tuple[Float[Array, "B T N P"], Float[Array, "B N P Z"]]:
  """Outputs of a stretch and the state behind it.

  Args:
    value: x, what is written to the state.
    step: d, positive; float32.
    slope: a, positive; float32.
    key: B, heads `N / G` to a group.
    query: C.
    state: before the stretch, float32.
    chunk: Q, tokens that are read by one matrix product.
    count: leading tokens that are real; filling behind them does not touch the
      state, and its outputs mean nothing. None: all.

  Returns:
    float32 outputs, and the float32 state after the real tokens.

  Cost per token and head: `4 P Z` operations, and `2 Z G / N + 2 P` for each of
  the `Q` tokens of its chunk.
  """
  real = real_tokens(value.shape[1], count)
  if real is not None:
    # A step of zero neither decays nor writes.
    step = step * real[None, :, None]

  def body(state: jax.Array, tokens: tuple) -> tuple:
    value, step, key, query = tokens
    return _chunk(state, value, step, slope, key, query)

  out, after = scan_chunks(body, state, (value, step, key, query), chunk=chunk)
  return out, after


def _chunk(
  state: Float[Array, "B N P Z"],
  value: Float[Array, "B Q N P"],
  step: Float[Array, "B Q N"],
  slope: Float[Array, " N"],
  key: Float[Array, "B Q G Z"],
  query: Float[Array, "B Q G Z"],
) -> tuple[Float[Array, "B N P Z"], Float[Array, "B Q N P"]]:
  """One chunk, its heads in their groups: `[B G R ...]`, N = G R."""
  batch, length, heads, dim = value.shape
  groups = key.shape[2]

  def grouped(x: jax.Array, axis: int) -> jax.Array:
    x = jnp.moveaxis(x, axis, 1)
    return x.reshape(batch, groups, heads // groups, *x.shape[2:])

  total = jnp.cumsum(-step * slope[None, None], axis=1)
  state, value = grouped(state, 1), grouped(value, 2)
  step, total = grouped(step, 2), grouped(total, 2)
  lower = jnp.tri(length, dtype=bool)[None, None, None]
  ahead = total[..., :, None] - total[..., None, :]
  decay = jnp.exp(jnp.where(lower, ahead, -jnp.inf))
  scores = jnp.einsum(
    "blgz,bsgz->bgls", query, key, preferred_element_type=jnp.float32
  )
  mixed = scores[:, :, None] * decay * step[..., None, :]
  out = jnp.einsum(
    "bgrls,bgrsp->bgrlp",
    mixed.astype(value.dtype),
    value,
    preferred_element_type=jnp.float32,
  )
  before = jnp.einsum("blgz,bgrpz->bgrlp", query.astype(jnp.float32), state)
  out = out + jnp.exp(total)[..., None] * before
  left = (jnp.exp(total[..., -1:] - total) * step)[..., None]
  written = jnp.einsum(
    "bgrsp,bsgz->bgrpz",
    (left * value).astype(value.dtype),
    key,
    preferred_element_type=jnp.float32,
  )
  state = jnp.exp(total[..., -1])[..., None, None] * state + written
  out = jnp.moveaxis(out.reshape(batch, heads, length, dim), 1, 2)
  return state.reshape(batch, heads, dim, -1), out
