"""Which chunks a token reads: scores, exact top-k, nearest-first order."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from hsa_jax.ops.mesh_axes import (
  CONTEXT_AXIS,
  can_split,
  context_shards,
  split_axes,
)
from hsa_jax.types import PRNGKey, Selection

HIGHEST = lax.Precision.HIGHEST


def retrieval_scores(
  query: Float[Array, "B T G R"], landmarks: Float[Array, "B C G R"]
) -> Float[Array, "B T G C"]:
  """`<q_t, landmark_i> / sqrt(R)` per retrieval head, in float32."""
  scores = jnp.einsum(
    "btgr,bcgr->btgc",
    query,
    landmarks,
    precision=HIGHEST,
    preferred_element_type=jnp.float32,
  )
  return scores * query.shape[-1] ** -0.5


def select_chunks(
  query: Float[Array, "B T G R"],
  landmarks: Float[Array, "B C G R"],
  *,
  num_visible: Int[Array, " T"],
  top_k: int,
  limit: Int[Array, ""] | None = None,
  noise_key: PRNGKey | None = None,
) -> Selection:
  """Picks for each token the `top_k` best-scoring chunks it may see.

  Slots are ordered nearest first (descending chunk id), the order that
  stick-breaking weights build on. Fewer visible chunks than slots leave
  trailing slots invalid (index 0, score -inf). Equal scores go to the later
  chunk. The choice carries no gradient; the scores do.

  Args:
    query: retrieval queries.
    landmarks: one vector per complete chunk and retrieval head.
    num_visible: chunks `0 .. n - 1` may be chosen; see `chunking`.
    top_k: K, the number of slots, at least 1; may exceed C.
    limit: traced number of slots in use, for a schedule of K.
    noise_key: adds Gumbel noise to the choice, never to the scores returned.

  Returns:
    `Selection(index, score, valid)`, each [B T G K].

  Raises:
    ValueError: if `top_k < 1`.

  Cost: 2*T*C*R operations per head and [T, C] float32 scores.
  Source: arXiv 2510.17196 eq. 2.
  """
  if top_k < 1:
    raise ValueError(f"top_k = {top_k}: must be at least 1")
  num_chunks = landmarks.shape[1]
  if num_chunks == 0:
    return empty_selection(query.shape[:3], top_k)
  scores = retrieval_scores(query, landmarks)
  chosen = lax.stop_gradient(scores)
  if noise_key is not None:
    chosen = chosen + jax.random.gumbel(noise_key, chosen.shape)
  visible = jnp.arange(num_chunks)[None] < num_visible[:, None]
  chosen = jnp.where(visible[None, :, None], chosen, -jnp.inf)
  index = nearest_first(_top_k_later(chosen, top_k, limit))
  valid = index >= 0
  index = jnp.maximum(index, 0)
  score = jnp.take_along_axis(scores, index, axis=-1)
  return Selection(index, jnp.where(valid, score, -jnp.inf), valid)


def nearest_first(index: Int[Array, "*lead K"]) -> Int[Array, "*lead K"]:
  """Descending chunk ids; the -1 of unused slots go to the tail."""
  return -jnp.sort(-index, axis=-1)


def empty_selection(lead: tuple[int, ...], top_k: int) -> Selection:
  """All slots invalid: a memory that holds no chunk yet."""
  shape = (*lead, top_k)
  return Selection(
    jnp.zeros(shape, jnp.int32),
    jnp.full(shape, -jnp.inf, jnp.float32),
    jnp.zeros(shape, bool),
  )


def join_selections(before: Selection, found: Selection) -> Selection:
  """The rows of `before`, then those of `found`."""
  pairs = zip(before, found, strict=True)
  return Selection(*(jnp.concatenate(pair, axis=1) for pair in pairs))


def repeat_selection(
  selection: Selection, *, tokens: int, length: int, ahead: bool = False
) -> Selection:
  """Every block of `tokens` tokens reuses the selection of its first one.

  Chunks visible to the first token of a block are visible to all of it, so
  causality holds. `selection` has one row per block.

  Args:
    selection: one row per block.
    tokens: of a block.
    length: tokens of the result.
    ahead: it is the last token of each complete block that retrieved, for the
      block behind it; the first block has nothing.
  """
  if ahead:
    batch, _, heads, top_k = selection.index.shape
    nothing = empty_selection((batch, 1, heads), top_k)
    selection = join_selections(nothing, selection)

  def spread(x: jax.Array) -> jax.Array:
    return jnp.repeat(x, tokens, axis=1)[:, :length]

  return Selection(*map(spread, selection))


def _top_k_later(
  chosen: Float[Array, "B T G C"], top_k: int, limit: Int[Array, ""] | None
) -> Int[Array, "B T G K"]:
  """Ids of the best chunks, -1 in slots without a visible one."""
  num_chunks = chosen.shape[-1]
  width = min(top_k, num_chunks)
  # lax.top_k prefers the lower index among equals: reversing prefers the later.
  best, reverse = _split_top_k(chosen[..., ::-1], width)
  used = best > -jnp.inf
  if limit is not None:
    used &= (jnp.arange(width) < limit)[None, None, None]
  index = jnp.where(used, num_chunks - 1 - reverse, -1).astype(jnp.int32)
  pad = [(0, 0)] * (index.ndim - 1) + [(0, top_k - width)]
  return jnp.pad(index, pad, constant_values=-1)


def _split_top_k(
  scores: Float[Array, "B T G C"], k: int
) -> tuple[jax.Array, jax.Array]:
  """`lax.top_k` on each device's own rows, tokens and heads.

  The partitioner would gather every score on every device instead. Where the
  mesh is known it is split by hand, else by a rule that the partitioner of TPUs
  does not know (jax-ml/jax#38196) and does not need.
  """
  if not can_split():
    best, index = lax.platform_dependent(
      scores,
      tpu=lambda scores: tuple(lax.top_k(scores, k)),
      default=lambda scores: _top_k(scores, k),
    )
    return best, index
  rows, heads = split_axes(scores.shape[0], scores.shape[2])
  context = CONTEXT_AXIS if context_shards(scores.shape[1]) > 1 else None
  spec = P(rows or None, context, heads, None)
  best, index = jax.shard_map(
    lambda scores: tuple(lax.top_k(scores, k)), in_specs=spec, out_specs=spec
  )(scores)
  return best, index


@functools.partial(custom_partitioning, static_argnums=(1,))
def _top_k(scores: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
  """`lax.top_k`, split over all axes but the last wherever its operand is."""
  best, index = lax.top_k(scores, k)
  return best, index


def _partition_top_k(
  k: int, mesh: Mesh, operands: tuple, results: tuple
) -> tuple:
  def on_shard(scores: jax.Array) -> tuple[jax.Array, jax.Array]:
    best, index = lax.top_k(scores, k)
    return best, index

  shardings = tuple(result.sharding for result in results)
  return mesh, on_shard, shardings, (operands[0].sharding,)


_top_k.def_partition(
  partition=_partition_top_k,
  sharding_rule="b t g c -> b t g k, b t g k",
  need_replication_factors=("c", "k"),
)
