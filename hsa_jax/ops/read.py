"""The sparse read: attention inside each selected chunk, fused by weights.

    out_t = sum_k w_{t,k} * softmax_n(q_t K_{i_k}^T / sqrt(H)) V_{i_k}

Each chunk has its own softmax denominator; chunks meet only in the weighted
sum (arXiv 2510.17196 sec. 3, 2504.16795 eq. 5). `softmax_n` adds n to the
denominator: n = 1 is the softmax-off-by-one "sink". One signature, several
implementations, forward and gradient equal:

  reference  loops over tokens and chunks: the specification (`ops.reference`)
  dense      all chunks for all tokens, weight 0 where not selected: large
             matrix products; best while a sequence holds few chunks
  gather     only the selected chunks, gathered per tile of queries
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from hsa_jax.ops import reference
from hsa_jax.ops.context import read_over_context
from hsa_jax.ops.mesh_axes import context_shards
from hsa_jax.ops.softmax import softmax
from hsa_jax.types import Selection

IMPLEMENTATIONS = ("reference", "dense", "gather")
# Keys and values that `gather` holds at a time, per row of a batch. Rows of
# which all fits are not recomputed in the backward pass.
GATHER_ROW_BYTES = 64 * 2**20
# Tiles of queries that `dense` cuts a causal read into: more save little, and
# each is compiled.
DENSE_MAX_TILES, DENSE_MIN_TILE = 8, 128
# Scores of one row, in bytes, beyond which `dense` computes a tile again in the
# backward pass: they would all be kept for it at once.
DENSE_ROW_BYTES = 2**30
# `dense` computes C/K times the useful logits, in larger and fewer products.
DENSE_MAX_RATIO = {"cpu": 2, "gpu": 16, "tpu": 32}


def pick_implementation(
  *, num_chunks: int, top_k: int, backend: str | None = None
) -> str:
  """The implementation that `auto` stands for, by shape and backend."""
  backend = backend or jax.default_backend()
  ratio = DENSE_MAX_RATIO.get(backend, DENSE_MAX_RATIO["gpu"])
  return "dense" if num_chunks <= ratio * top_k else "gather"


def dense_tile(length: int) -> int:
  """Queries of a tile of the causal dense read."""
  return max(-(-length // DENSE_MAX_TILES), DENSE_MIN_TILE)


def dense_recomputes(length: int, num_heads: int) -> bool:
  """Whether the causal dense read keeps no scores for the backward pass."""
  return 4 * num_heads * length**2 // 2 > DENSE_ROW_BYTES


def read_chunks(
  query: Float[Array, "B T N H"],
  keys: Float[Array, "B C S G H"],
  values: Float[Array, "B C S G H"],
  selection: Selection,
  weights: Float[Array, "B T G K"] | None,
  *,
  sink: int = 0,
  causal: bool = False,
  implementation: str = "auto",
) -> Float[Array, "B T N H"]:
  """Reads the selected chunks; see the module's equation.

  Args:
    query: read queries; `N / G` query heads share a memory head.
    keys: chunk keys, without positions.
    values: chunk values.
    selection: chunk ids per token and memory head.
    weights: weight of each slot, 0 in invalid ones; None weighs each chunk by
      its attention mass per query head (NSA), which equals one flat softmax
      over all selected tokens.
    sink: 0 or 1, added to each chunk's softmax denominator.
    causal: promises that query t is token t of the sequence that the chunks are
      cut from, and selects only chunks that ended before it: `dense` then
      leaves out what no token of a tile can see.
    implementation: auto | reference | dense | gather.

  Returns:
    The fused head outputs, in the dtype of `query`; 0 where nothing is valid.

  Raises:
    ValueError: for an unknown implementation.
  """
  if keys.shape[1] == 0:
    return jnp.zeros_like(query)
  if context_shards(query.shape[1]) > 1:
    # A part of the queries begins anywhere in the sequence: not `causal`.
    read = functools.partial(
      read_chunks, sink=sink, implementation=implementation
    )
    return read_over_context(read, query, keys, values, selection, weights)
  if implementation == "auto":
    implementation = pick_implementation(
      num_chunks=keys.shape[1], top_k=selection.index.shape[-1]
    )
  functions = {
    "reference": reference.read_chunks,
    "dense": _read_dense_causal if causal else _read_dense,
    "gather": _read_gather,
  }
  if implementation not in functions:
    names = ", ".join(IMPLEMENTATIONS)
    raise ValueError(f"implementation {implementation!r}: use one of {names}")
  return functions[implementation](
    query, keys, values, selection, weights, sink=sink
  )


def read_gathered(
  query: Float[Array, "B T N H"],
  keys: Float[Array, "B T G K S H"],
  values: Float[Array, "B T G K S H"],
  weights: Float[Array, "B T G K"] | None,
  valid: Bool[Array, "B T G K"],
  *,
  sink: int = 0,
) -> Float[Array, "B T N H"]:
  """The read when each token's chunks already lie beside it.

  What host and disk memories call with the chunks that they fetched.
  """
  batch, length, num_heads, head_dim = query.shape
  heads, slots, chunk_size = keys.shape[2:5]
  lead = (batch, length, heads)
  grouped = query.reshape(*lead, num_heads // heads, head_dim)
  keys, values = (x.reshape(*lead, -1, head_dim) for x in (keys, values))
  logits = _scores(grouped, keys) * head_dim**-0.5
  logits = logits.reshape(*logits.shape[:-1], slots, chunk_size)
  attend, mass = softmax(logits, sink=sink)
  if weights is None:
    share = _mass_weights(mass, valid[:, :, :, None])
  else:
    share = weights[:, :, :, None]
  attend = (attend * share[..., None]).astype(values.dtype)
  out = _mix(attend.reshape(*attend.shape[:-2], -1), values)
  return out.reshape(query.shape).astype(query.dtype)


@jax.custom_vjp
def _scores(
  query: Float[Array, "*lead Q H"], keys: Float[Array, "*lead J H"]
) -> Float[Array, "*lead Q J"]:
  """Few queries against many keys of their own, float32.

  Written, with `_mix`, so that forwards and backwards only the small operand
  is ever transposed: the large one was gathered for this token alone.
  """
  return _swap(_dot("...jh,...hq->...jq", keys, _swap(query)))


@jax.custom_vjp
def _mix(
  shares: Float[Array, "*lead Q J"], values: Float[Array, "*lead J H"]
) -> Float[Array, "*lead Q H"]:
  """Sums of many values of their own for few queries, float32."""
  return _dot("...qj,...jh->...qh", shares, values)


def _scores_bwd(saved: tuple, grad: jax.Array) -> tuple:
  query, keys = saved
  grad = grad.astype(keys.dtype)
  return (
    _mix(grad, keys).astype(query.dtype),
    _dot("...jq,...qh->...jh", _swap(grad), query).astype(keys.dtype),
  )


def _mix_bwd(saved: tuple, grad: jax.Array) -> tuple:
  shares, values = saved
  grad = grad.astype(values.dtype)
  return (
    _scores(grad, values).astype(shares.dtype),
    _dot("...jq,...qh->...jh", _swap(shares), grad).astype(values.dtype),
  )


_scores.defvjp(lambda q, k: (_scores(q, k), (q, k)), _scores_bwd)
_mix.defvjp(lambda s, v: (_mix(s, v), (s, v)), _mix_bwd)


def _swap(x: jax.Array) -> jax.Array:
  return jnp.swapaxes(x, -1, -2)


def read_pairs(
  query: Float[Array, "M Q H"],
  keys: Float[Array, "M S H"],
  values: Float[Array, "M S H"],
  *,
  sink: int = 0,
) -> tuple[Float[Array, "M Q H"], Float[Array, "M Q"]]:
  """Attention inside one chunk for each of `M` pairs (token, chunk).

  Returns:
    What each of the `Q` query heads reads, and the logarithm of its softmax
    denominator, both float32. Sums over a token's chunks are the caller's.
  """
  logits = _dot("mqh,msh->mqs", query, keys) * query.shape[-1] ** -0.5
  attend, mass = softmax(logits, sink=sink)
  return _dot("mqs,msh->mqh", attend.astype(values.dtype), values), mass


def _dot(spec: str, a: jax.Array, b: jax.Array) -> jax.Array:
  return jnp.einsum(spec, a, b, preferred_element_type=jnp.float32)


def _mass_weights(
  mass: Float[Array, "*#lead K"], valid: Bool[Array, "*#lead K"]
) -> Float[Array, "... K"]:
  """Each chunk's share of the joint denominator; 0 in rows without any."""
  top = jnp.max(jnp.where(valid, mass, -1e30), axis=-1, keepdims=True)
  top = lax.stop_gradient(jnp.maximum(top, -1e29))
  above = jnp.where(valid, mass - top, 0.0)  # exp stays finite
  share = jnp.where(valid, jnp.exp(above), 0.0)
  total = jnp.sum(share, axis=-1, keepdims=True)
  return share / jnp.where(total > 0, total, 1.0)


def _read_dense_causal(
  query: jax.Array,
  keys: jax.Array,
  values: jax.Array,
  selection: Selection,
  weights: jax.Array | None,
  *,
  sink: int,
) -> jax.Array:
  """`_read_dense` per tile of queries, on the chunks before its last one."""
  length, (num_chunks, chunk_size) = query.shape[1], keys.shape[1:3]
  tile = dense_tile(length)
  read = functools.partial(_read_dense, sink=sink)
  if dense_recomputes(length, query.shape[2]):
    read = jax.checkpoint(read)
  parts = []
  for start in range(0, length, tile):
    rows = slice(start, min(start + tile, length))
    seen = min((rows.stop - 1) // chunk_size, num_chunks)
    own = (query, selection, weights)
    tile_query, chosen, share = jax.tree.map(
      lambda x, rows=rows: x[:, rows], own
    )
    if seen == 0:
      parts.append(jnp.zeros_like(tile_query))
      continue
    parts.append(
      read(tile_query, keys[:, :seen], values[:, :seen], chosen, share)
    )
  return jnp.concatenate(parts, axis=1)


def _read_dense(
  query: jax.Array,
  keys: jax.Array,
  values: jax.Array,
  selection: Selection,
  weights: jax.Array | None,
  *,
  sink: int,
) -> jax.Array:
  batch, length, num_heads, head_dim = query.shape
  num_chunks, heads = keys.shape[1], keys.shape[3]
  grouped = query.reshape(batch, length, heads, num_heads // heads, head_dim)
  logits = _dot("btgqh,bcsgh->bgqtcs", grouped, keys) * head_dim**-0.5
  attend, mass = softmax(logits, sink=sink)
  if weights is None:
    chosen = _spread(selection, selection.valid.astype(jnp.float32), num_chunks)
    share = _mass_weights(mass, chosen[:, :, None] > 0)
  else:
    share = _spread(selection, weights, num_chunks)[:, :, None]
  attend = (attend * share[..., None]).astype(values.dtype)
  out = _dot("bgqtcs,bcsgh->btgqh", attend, values)
  return out.reshape(query.shape).astype(query.dtype)


def _spread(
  selection: Selection, slots: Float[Array, "B T G K"], num_chunks: int
) -> Float[Array, "B G T C"]:
  """Slot values laid out by chunk id; 0 elsewhere.

  A fused compare-and-sum: no scatter, forward or backward. Invalid slots point
  at chunk 0 with value 0, so adding them is harmless.
  """
  index = selection.index.transpose(0, 2, 1, 3)[..., None]
  slots = slots.transpose(0, 2, 1, 3)[..., None]
  chunk = jnp.arange(num_chunks)[None, None, None, None]
  return jnp.sum(jnp.where(index == chunk, slots, 0.0), axis=-2)


def _read_gather(
  query: jax.Array,
  keys: jax.Array,
  values: jax.Array,
  selection: Selection,
  weights: jax.Array | None,
  *,
  sink: int,
) -> jax.Array:
  length = query.shape[1]

  def read_tile(rows: tuple) -> jax.Array:
    tile_query, index, valid, tile_weights = rows
    return read_gathered(
      tile_query,
      take_chunks(keys, index),
      take_chunks(values, index),
      tile_weights,
      valid,
      sink=sink,
    )

  rows = (query, selection.index, selection.valid, weights)
  tile = _gather_tile(keys, selection)
  if tile >= length:
    return read_tile(rows)
  num_tiles = -(-length // tile)
  tiles = jax.tree.map(lambda x: _tiles(x, num_tiles, tile), rows)
  out = lax.map(jax.checkpoint(read_tile, prevent_cse=False), tiles)
  out = jnp.moveaxis(out, 0, 1).reshape(query.shape[0], -1, *query.shape[2:])
  return out[:, :length]


def _gather_tile(keys: jax.Array, selection: Selection) -> int:
  """Queries at a time, by the bytes of keys and values that each gathers."""
  chunk = math.prod(keys.shape[2:]) * keys.dtype.itemsize
  return max(GATHER_ROW_BYTES // (2 * chunk * selection.index.shape[-1]), 1)


def take_chunks(
  chunks: Float[Array, "B C S G H"], index: jax.Array
) -> Float[Array, "B T G K S H"]:
  """The chunks `index[B T G K]` of each memory head."""

  def one_head(tokens: jax.Array, ids: jax.Array) -> jax.Array:
    return tokens[ids]  # [C S H], [T K] -> [T K S H]

  per_head = jax.vmap(one_head, in_axes=(2, 1), out_axes=1)
  return jax.vmap(per_head)(chunks, index)


def _tiles(x: jax.Array, num_tiles: int, tile: int) -> jax.Array:
  """[B, T, ...] -> [num_tiles, B, tile, ...], padded with zeros."""
  pad = [(0, 0)] * x.ndim
  pad[1] = (0, num_tiles * tile - x.shape[1])
  x = jnp.pad(x, pad).reshape(x.shape[0], num_tiles, tile, *x.shape[2:])
  return jnp.moveaxis(x, 1, 0)
