"""A sequence split over the mesh axis `context`: what crosses its borders.

Everything that treats tokens one by one needs nothing here. Two operations look
back: a window of W keys needs the W - 1 before each part (a halo, passed on by
neighbours), and the sparse read may choose any earlier chunk (keys and values
are gathered; landmarks are by the partitioner, for the search).
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float

from hsa_jax.ops.mesh_axes import CONTEXT_AXIS, split_axes
from hsa_jax.types import Selection


def window_over_context(
  attend: Callable[..., jax.Array],
  query: Float[Array, "B T N H"],
  keys: Float[Array, "B T G H"],
  values: Float[Array, "B T G H"],
  *,
  window: int,
  limit: jax.Array | None,
  slopes: Float[Array, " N"] | None = None,
) -> Float[Array, "B T N H"]:
  """Window attention of a whole sequence, each device on its own tokens.

  Args:
    attend: `(query, keys, values, limit=, first_valid=, slopes=)` for one
      device, keys with their past before them.
    query: of all tokens; the axis `context` divides T.
    keys: like `query`.
    values: like `query`.
    window: W, static.
    limit: traced number of keys in use.
    slopes: of ALiBi, one per query head; split like them.

  Cost: W - 1 keys and values per device and layer, from its neighbours.
  """
  rows, heads = split_axes(query.shape[0], keys.shape[2])
  spec = P(rows or None, CONTEXT_AXIS, heads, None)
  halo = functools.partial(_with_halo, reach=window - 1)

  def on_device(
    query: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    limit: jax.Array | None,
    slopes: jax.Array | None,
  ) -> jax.Array:
    length = query.shape[1]
    keys, values = halo(keys), halo(values)
    past = keys.shape[1] - length
    seen = lax.axis_index(CONTEXT_AXIS) * length  # tokens before this part
    return attend(
      query,
      keys,
      values,
      limit=limit,
      first_valid=jnp.maximum(past - seen, 0),
      slopes=slopes,
    )

  return jax.shard_map(
    on_device,
    in_specs=(spec, spec, spec, P(), P(heads)),
    out_specs=spec,
    check_vma=False,  # a kernel does not say over which axes it varies
  )(query, keys, values, limit, slopes)


def _with_halo(x: Float[Array, "B t G H"], *, reach: int) -> jax.Array:
  """The last `reach` tokens before a part, then the part itself.

  Parts shorter than the reach need more than one neighbour. What lies before
  the sequence is zero.
  """
  length, shards = x.shape[1], lax.axis_size(CONTEXT_AXIS)
  pieces = [x]
  for hop in range(1, shards):
    missing = min(reach - (hop - 1) * length, length)
    if missing <= 0:
      break
    steps = [(i, i + hop) for i in range(shards - hop)]
    tail = x[:, length - missing :]
    pieces.insert(0, lax.ppermute(tail, CONTEXT_AXIS, steps))
  return jnp.concatenate(pieces, axis=1)


def read_over_context(
  read: Callable[..., jax.Array],
  query: Float[Array, "B T N H"],
  keys: Float[Array, "B C S G H"],
  values: Float[Array, "B C S G H"],
  selection: Selection,
  weights: Float[Array, "B T G K"] | None,
) -> Float[Array, "B T N H"]:
  """The sparse read of a whole sequence, each device for its own tokens.

  Args:
    read: `(query, keys, values, selection, weights)` for one device.
    query: of all tokens; the axis `context` divides T.
    keys: of all chunks.
    values: like `keys`.
    selection: chunks of each token.
    weights: of each slot.

  Cost: every device receives all keys and values of its rows once; their
  gradients go back the same way, summed.
  """
  rows, heads = split_axes(query.shape[0], keys.shape[3])
  lead = rows or None
  shards = jax.sharding.get_abstract_mesh().shape[CONTEXT_AXIS]
  # Chunks that do not divide are already whole on every device.
  over = CONTEXT_AXIS if keys.shape[1] % shards == 0 else None
  chunks = P(lead, over, None, heads, None)
  tokens = P(lead, CONTEXT_AXIS, heads, None)

  def on_device(
    query: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    selection: Selection,
    weights: jax.Array | None,
  ) -> jax.Array:
    if over:
      keys, values = (
        lax.all_gather(x, CONTEXT_AXIS, axis=1, tiled=True)
        for x in (keys, values)
      )
    return read(query, keys, values, selection, weights)

  return jax.shard_map(
    on_device,
    in_specs=(tokens, chunks, chunks, tokens, tokens),
    out_specs=tokens,
    check_vma=False,
  )(query, keys, values, selection, weights)
