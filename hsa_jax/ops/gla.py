"""Gated linear attention by matrix products (arXiv 2312.06635).

    S_t = diag(exp(g_t)) S_(t-1) + k_t v_t^T        y_t = S_t^T q_t / sqrt(Z)

with a log-decay g <= 0 for every channel of the key. With b the sum of g up to
and including a token, the score of token j for token i >= j of a chunk is

    sum_z q_iz k_jz exp(b_iz - b_jz)

whose exponent is never positive but is no product of two safe factors: exp(-b)
overflows where the decay is strong. So a chunk is cut into blocks. Between two
blocks the exponent is split where the later one begins, into two parts that are
both not positive; inside a block it is computed for every pair.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hsa_jax.ops.chunked import real_tokens, scan_chunks

BLOCK = 16  # tokens whose pairs are exponentiated one by one


def block_length(chunk: int) -> int:
  """Tokens of a block: at most `BLOCK`, and they divide the chunk."""
  return math.gcd(chunk, BLOCK)


def gla(
  query: Float[Array, "B T N Z"],
  key: Float[Array, "B T N Z"],
  value: Float[Array, "B T N P"],
  log_decay: Float[Array, "B T N Z"],
  state: Float[Array, "B N Z P"],
  *,
  chunk: int,
  count: jax.Array | int | None = None,
) -> tuple[Float[Array, "B T N P"], Float[Array, "B N Z P"]]:
  """Outputs of a stretch and the state behind it.

  Args:
    query: q, of every head.
    key: k.
    value: v.
    log_decay: g, not positive; float32.
    state: before the stretch, float32.
    chunk: tokens between two states.
    count: leading tokens that are real; filling behind them does not touch the
      state, and its outputs mean nothing. None: all.

  Returns:
    float32 outputs, and the float32 state after the real tokens.

  Cost per token and head: `4 Z P` operations, `2 Z + 2 P` for each token of the
  chunk, and `3 Z` elementwise for each token of the block.
  """
  length = value.shape[1]
  block = min(block_length(chunk), length)
  size = min(chunk, -(-length // block) * block)
  real = real_tokens(length, count)
  if real is not None:
    real = real[None, :, None, None]
    key, log_decay = key * real.astype(key.dtype), log_decay * real
  query = query * query.shape[-1] ** -0.5

  def body(state: jax.Array, tokens: tuple) -> tuple:
    return _chunk(state, *tokens, block=block)

  tokens = (query, key, value, log_decay)
  return scan_chunks(body, state, tokens, chunk=size)


def _chunk(
  state: Float[Array, "B N Z P"],
  query: Float[Array, "B Q N Z"],
  key: Float[Array, "B Q N Z"],
  value: Float[Array, "B Q N P"],
  log_decay: Float[Array, "B Q N Z"],
  *,
  block: int,
) -> tuple[Float[Array, "B N Z P"], Float[Array, "B Q N P"]]:
  query, key, value = (x.astype(jnp.float32) for x in (query, key, value))
  total = jnp.cumsum(log_decay, axis=1)
  score = _scores(query, key, total, block=block)
  out = jnp.einsum("bnis,bsnp->binp", score, value)
  out = out + jnp.einsum("binz,bnzp->binp", query * jnp.exp(total), state)
  left = key * jnp.exp(total[:, -1:] - total)
  written = jnp.einsum("bsnz,bsnp->bnzp", left, value)
  state = jnp.exp(total[:, -1])[..., None] * state + written
  return state, out


def _scores(
  query: Float[Array, "B Q N Z"],
  key: Float[Array, "B Q N Z"],
  total: Float[Array, "B Q N Z"],
  *,
  block: int,
) -> Float[Array, "B N Q s"]:
  """Of every token and every key of a chunk; zero where the key is later."""
  batch, length, heads, _ = query.shape
  count = length // block

  def blocks(x: jax.Array) -> jax.Array:
    return x.reshape(batch, count, block, heads, -1)

  queries, keys, totals = blocks(query), blocks(key), blocks(total)
  lower = jnp.tri(block, dtype=bool)[None, None, :, :, None, None]
  ahead = totals[:, :, :, None] - totals[:, :, None]
  pairs = jnp.exp(jnp.where(lower, ahead, -jnp.inf))
  near = jnp.sum(queries[:, :, :, None] * keys[:, :, None] * pairs, axis=-1)
  near = jnp.moveaxis(near, -1, 1)  # [B N block i j]
  if count == 1:
    return near[:, :, 0]
  # What was decayed before each block begins: a part for the tokens of the
  # block, and one for the keys before it.
  begin = jnp.pad(totals[:, :-1, -1], ((0, 0), (1, 0), (0, 0), (0, 0)))
  earlier = jnp.arange(length)[None] < block * jnp.arange(count)[:, None]
  ahead = begin[:, :, None] - total[:, None]
  decay = jnp.exp(jnp.where(earlier[None, :, :, None, None], ahead, -jnp.inf))
  far = jnp.einsum(
    "baunz,basnz->bnaus",
    queries * jnp.exp(totals - begin[:, :, None]),
    key[:, None] * decay,
  )
  own = jnp.eye(count)[None, None, :, None, :, None]
  scores = far + (near[:, :, :, :, None] * own).reshape(far.shape)
  return scores.reshape(batch, heads, length, length)
