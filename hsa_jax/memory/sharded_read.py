"""What one shard contributes to a read: the selected chunks that it owns.

All (token, slot) pairs whose chunk lies here are listed one after the other and
read in passes of a fixed size, as many as there are pairs. So the work of a
shard is proportional to what it owns, a 1/M share on average; a shard without
any does none, and a shard that owns everything takes M times as many passes
instead of dropping what exceeds its share.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.compute_on import compute_on
from jaxtyping import Array, Float, Int

from hsa_jax.ops.read import read_pairs
from hsa_jax.types import ChunkTokens, Queries, Selection

PASSES = 8  # of a shard with its even share: an uneven one costs 1/8 more
MIN_PASS, MAX_PASS = 8, 4_096  # pairs; the upper bound limits what is gathered

Take = Callable[[Array, tuple[Array, Array, Array]], Array]


class Pairs(NamedTuple):
  """Where each pair of a pass belongs; `live` is False in filling."""

  row: Int[Array, " M"]
  token: Int[Array, " M"]
  head: Int[Array, " M"]
  slot: Int[Array, " M"]
  live: Array


class Sums(NamedTuple):
  """Sums over the pairs so far, [B T G Q ...] float32.

  With weights, `out` alone counts. Without, chunks are weighed by attention
  mass: `total` is the sum of exp(mass - top), and `out` is scaled likewise.
  """

  out: Array
  total: Array
  top: Array


def pass_size(pairs: int, shards: int) -> int:
  """Pairs per pass, for so many (token, slot) pairs over all shards."""
  even = -(-pairs // (shards * PASSES))
  return min(max(even, min(MIN_PASS, pairs)), MAX_PASS)


def read_owned(
  query: Queries,
  kv: tuple[ChunkTokens, ChunkTokens],
  selection: Selection,
  weights: Float[Array, "B T G K"] | None,
  *,
  axis: str,
  shards: int,
  sink: int,
  take: Take,
) -> Queries:
  """The read of all shards together, on each of them; under `shard_map`.

  Args:
    query: read queries, the same on every shard.
    kv: this shard's keys and values.
    selection: ids over all shards.
    weights: weight of each slot, or None for attention mass.
    axis: mesh axis of the shards.
    shards: how many there are; chunk `i` is slot `i // shards` of its shard.
    sink: see `ops.read`.
    take: gathers chunks from where they are kept.
  """
  batch, length, num_heads, dim = query.shape
  heads = selection.index.shape[2]
  grouped = query.reshape(batch, length, heads, num_heads // heads, dim)
  mine = selection.index % shards == lax.axis_index(axis)
  owned = (selection.valid & mine).reshape(-1)
  size = pass_size(owned.size, shards)
  room = -(-owned.size // size) * size
  (places,) = jnp.nonzero(owned, size=room, fill_value=0)
  count = jnp.sum(owned, dtype=jnp.int32)

  def one_pass(i: Array, sums: Sums) -> Sums:
    place = lax.dynamic_slice_in_dim(places, i * size, size)
    row, token, head, slot = jnp.unravel_index(place, selection.index.shape)
    live = i * size + jnp.arange(size) < count
    pairs = Pairs(row, token, head, slot, live)
    chunk = selection.index[row, token, head, slot] // shards
    keys, values = (take(x, (row, chunk, head)) for x in kv)
    read, mass = read_pairs(grouped[row, token, head], keys, values, sink=sink)
    if weights is None:
      return _add_by_mass(sums, pairs, read, mass)
    return _add_weighted(sums, pairs, read, weights)

  rows = grouped.shape[:-1]
  start = Sums(
    jnp.zeros(grouped.shape, jnp.float32),
    jnp.zeros(rows, jnp.float32),
    jnp.full(rows, -1e30, jnp.float32),
  )
  start = jax.tree.map(lambda x: lax.pcast(x, axis, to="varying"), start)
  sums = lax.fori_loop(0, (count + size - 1) // size, one_pass, start)
  out = _join(sums, axis, by_mass=weights is None)
  return out.reshape(query.shape).astype(query.dtype)


def take_pairs(
  chunks: ChunkTokens, where: tuple[Array, Array, Array]
) -> Float[Array, "M S H"]:
  """The chunk (row, slot, head) of each pair."""
  row, chunk, head = where
  return chunks[row, chunk, :, head]


def take_on_host(
  chunks: ChunkTokens, where: tuple[Array, Array, Array]
) -> Float[Array, "M S H"]:
  """`take_pairs` of chunks in host memory: only what was taken moves."""
  where = jax.device_put(where, jax.memory.Space.Host)
  taken = compute_on("device_host")(jax.jit(take_pairs))(chunks, where)
  return jax.device_put(taken, jax.memory.Space.Device)


def _add_weighted(
  sums: Sums, pairs: Pairs, read: Array, weights: Array
) -> Sums:
  row, token, head, slot, live = pairs
  share = jnp.where(live, weights[row, token, head, slot], 0.0)
  out = sums.out.at[row, token, head].add(read * share[:, None, None])
  return sums._replace(out=out)


def _add_by_mass(sums: Sums, pairs: Pairs, read: Array, mass: Array) -> Sums:
  """Shares of a running softmax over the masses."""
  where = pairs.row, pairs.token, pairs.head
  mass = jnp.where(pairs.live[:, None], mass, -jnp.inf)
  top = sums.top.at[where].max(mass)
  shrink = jnp.exp(sums.top - top)
  share = jnp.exp(mass - top[where])
  return Sums(
    (sums.out * shrink[..., None]).at[where].add(read * share[..., None]),
    (sums.total * shrink).at[where].add(share),
    top,
  )


def _join(sums: Sums, axis: str, *, by_mass: bool) -> Array:
  """The sum over shards; 0 where nothing was selected."""
  if not by_mass:
    return lax.psum(sums.out, axis)
  shrink = jnp.exp(sums.top - lax.pmax(sums.top, axis))
  out = lax.psum(sums.out * shrink[..., None], axis)
  total = lax.psum(sums.total * shrink, axis)
  return out / jnp.where(total > 0, total, 1.0)[..., None]
