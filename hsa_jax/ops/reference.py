"""The specification: token by token, chunk by chunk, no cleverness.

Slow on purpose. Each function states one equation; the fast implementations
are tested against these, forward and gradient.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from hsa_jax.types import Selection


def select_chunks(
  query: Float[Array, "B T G R"],
  landmarks: Float[Array, "B C G R"],
  *,
  num_visible: Int[Array, " T"],
  top_k: int,
) -> Selection:
  """`ops.select.select_chunks` by sorting each row in plain Python."""
  batch, length, heads, dim = query.shape
  slots = {}
  for b, t, g in _grid(batch, length, heads):
    visible = range(int(num_visible[t]))
    scored = [
      (float(jnp.dot(query[b, t, g], landmarks[b, i, g])) * dim**-0.5, i)
      for i in visible
    ]
    best = sorted(scored, reverse=True)[:top_k]  # equal scores: later chunk
    slots[b, t, g] = sorted((i for _, i in best), reverse=True)
  index = jnp.zeros((batch, length, heads, top_k), jnp.int32)
  valid = jnp.zeros(index.shape, bool)
  score = jnp.full(index.shape, -jnp.inf, jnp.float32)
  for (b, t, g), chunks in slots.items():
    for k, i in enumerate(chunks):
      value = jnp.dot(query[b, t, g], landmarks[b, i, g]) * dim**-0.5
      index = index.at[b, t, g, k].set(i)
      valid = valid.at[b, t, g, k].set(True)
      score = score.at[b, t, g, k].set(value)
  return Selection(index, score, valid)


def stick_breaking(selection: Selection) -> Float[Array, "B T G K"]:
  """`sigmoid(s_k) * prod_{j<k} (1 - sigmoid(s_j))`, slot by slot."""
  remaining = jnp.ones(selection.score.shape[:-1], jnp.float32)
  weights = []
  for k in range(selection.score.shape[-1]):
    score = jnp.where(selection.valid[..., k], selection.score[..., k], 0.0)
    share = jnp.where(selection.valid[..., k], jax.nn.sigmoid(score), 0.0)
    weights.append(share * remaining)
    remaining = remaining * (1 - share)
  return jnp.stack(weights, axis=-1)


def read_chunks(
  query: Float[Array, "B T N H"],
  keys: Float[Array, "B C S G H"],
  values: Float[Array, "B C S G H"],
  selection: Selection,
  weights: Float[Array, "B T G K"] | None,
  *,
  sink: int = 0,
) -> Float[Array, "B T N H"]:
  """`sum_k w_{t,k} softmax_n(q_t K_k^T / sqrt(H)) V_k`, token by token."""
  share = query.shape[2] // keys.shape[3]
  keys, values = (jnp.repeat(x, share, axis=3) for x in (keys, values))
  slots = (selection.index, selection.valid, weights)
  slots = jax.tree.map(lambda x: jnp.repeat(x, share, axis=2), slots)
  # A map over heads, then tokens, then sequences: nothing is shared by them.
  each = functools.partial(_read_one, sink=sink)
  each = jax.vmap(each, in_axes=(0, 2, 2, 0, 0, 0))
  each = jax.vmap(each, in_axes=(0, None, None, 0, 0, 0))
  return jax.vmap(each)(query, keys, values, *slots).astype(query.dtype)


def window_attention(
  query: Float[Array, "B T N H"],
  keys: Float[Array, "B U G H"],
  values: Float[Array, "B U G H"],
  *,
  window: int | Int[Array, ""],
  slopes: Float[Array, " N"] | None = None,
) -> Float[Array, "B T N H"]:
  """Causal attention to the last `window` keys, by an explicit [T, U] mask.

  The last query stands at the last key: key `j` is seen by query `i` iff
  `0 <= (U - T + i) - j < window`. ALiBi takes the slope of a head times this
  distance from its logit.
  """
  logits, values = _scores(query, keys, values)
  row = jnp.arange(query.shape[1])[:, None] + keys.shape[1] - query.shape[1]
  distance = row - jnp.arange(keys.shape[1])[None, :]
  seen = (distance >= 0) & (distance < window)
  if slopes is not None:
    logits = logits - slopes[None, :, None, None] * distance[None, None]
  attend = jax.nn.softmax(jnp.where(seen[None, None], logits, -1e30), axis=-1)
  return jnp.einsum("bntu,bunh->btnh", attend, values)


def full_attention(
  query: Float[Array, "B T N H"],
  keys: Float[Array, "B U G H"],
  values: Float[Array, "B U G H"],
  *,
  position: int | Int[Array, ""] = 0,
) -> Float[Array, "B T N H"]:
  """Causal attention by an explicit [T, U] mask.

  Query `i` stands at key `position + i` and sees all keys up to it.
  """
  logits, values = _scores(query, keys, values)
  standing = position + jnp.arange(query.shape[1])
  seen = jnp.arange(keys.shape[1])[None, :] <= standing[:, None]
  attend = jax.nn.softmax(jnp.where(seen[None, None], logits, -1e30), axis=-1)
  return jnp.einsum("bntu,bunh->btnh", attend, values)


def stick_breaking_attention(
  query: Float[Array, "B T N H"],
  keys: Float[Array, "B U G H"],
  values: Float[Array, "B U G H"],
  *,
  position: int | Int[Array, ""] = 0,
) -> Float[Array, "B T N H"]:
  """`sum_j A_ij v_j`, key by key from the newest to the oldest.

  `A_ij = sigmoid(z_ij) prod_{j<l<i} (1 - sigmoid(z_il))` over the keys before
  the one that the query stands at.
  """
  logits, values = _scores(query, keys, values)
  standing = position + jnp.arange(query.shape[1])

  def take(carry: tuple, key: tuple) -> tuple:
    left, out = carry
    j, logit, value = key
    piece = jnp.where(j < standing, jax.nn.sigmoid(logit), 0.0)
    out = out + (left * piece)[..., None] * value[:, :, None]
    return (left * (1 - piece), out), None

  left = jnp.ones(logits.shape[:-1], logits.dtype)
  start = (left, jnp.zeros((*left.shape, values.shape[-1]), logits.dtype))
  count = jnp.arange(keys.shape[1])
  one_by_one = (count, jnp.moveaxis(logits, -1, 0), values.swapaxes(0, 1))
  (_, out), _ = lax.scan(take, start, one_by_one, reverse=True)
  return out.swapaxes(1, 2)


def _scores(
  query: jax.Array, keys: jax.Array, values: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Scaled products [B, N, T, U], and values with a head for each query's."""
  num_heads, head_dim = query.shape[2:]
  keys = jnp.repeat(keys, num_heads // keys.shape[2], axis=2)
  values = jnp.repeat(values, num_heads // values.shape[2], axis=2)
  logits = jnp.einsum("btnh,bunh->bntu", query, keys) * head_dim**-0.5
  return logits, values


def _grid(*sizes: int) -> list[tuple[int, ...]]:
  grid: list[tuple[int, ...]] = [()]
  for size in sizes:
    grid = [(*head, i) for head in grid for i in range(size)]
  return grid


def _read_one(
  query: jax.Array,
  keys: jax.Array,
  values: jax.Array,
  index: jax.Array,
  valid: jax.Array,
  weights: jax.Array | None,
  *,
  sink: int,
) -> jax.Array:
  """One token, one head: keys and values are [C S H], slots [K]."""
  outputs, denominators = [], []
  for k in range(index.shape[0]):
    logits = keys[index[k]] @ query * query.shape[0] ** -0.5
    numerator = jnp.exp(logits)
    denominator = jnp.sum(numerator) + sink
    outputs.append(numerator @ values[index[k]] / denominator)
    denominators.append(denominator)
  if weights is None:
    mass = jnp.where(valid, jnp.stack(denominators), 0.0)
    total = jnp.sum(mass)
    weights = mass / jnp.where(total > 0, total, 1.0)
  weights = jnp.where(valid, weights, 0.0)
  return jnp.sum(weights[:, None] * jnp.stack(outputs), axis=0)
