"""Queries in blocks of rows, keys in blocks of columns: no [T, U] array.

What attends to a whole context walks over pairs of blocks. Rows are the tokens
of a block with the query heads of one key head beside one another, so that each
product is a plain matrix product per row of the batch and key head.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int

from hsa_jax.ops.mesh_axes import can_split, split_axes

ROWS = 256  # tokens of a block of queries
_AREA = ROWS * ROWS  # scores of a pair of blocks, per head

Rows = Float[Array, "B G r H"]
Block = Float[Array, "B c G H"]


class Tiles(NamedTuple):
  """How a call is cut.

  Attributes:
    rows: tokens of a block of queries.
    count: blocks of queries.
    columns: keys of a block.
    share: query heads of a key head.
    num_keys: U.
  """

  rows: int
  count: int
  columns: int
  share: int
  num_keys: int


def tiles_of(
  query: Float[Array, "B T N H"], keys: Float[Array, "B U G H"]
) -> Tiles:
  """Blocks of 256 by 256; with fewer queries the blocks of keys are longer."""
  length, num_keys = query.shape[1], keys.shape[1]
  rows = min(ROWS, length)
  return Tiles(
    rows,
    -(-length // rows),
    column_block(length, num_keys),
    query.shape[2] // keys.shape[2],
    num_keys,
  )


def column_block(length: int, num_keys: int) -> int:
  """Keys of a block, for `length` queries."""
  return max(min(_AREA // min(ROWS, length), 16 * ROWS, num_keys), 1)


def to_rows(x: Float[Array, "B T N H"], tiles: Tiles) -> jax.Array:
  """[B, T, N, H] -> [count, B, G, rows * share, H], filled with zeros."""
  missing = tiles.count * tiles.rows - x.shape[1]
  x = jnp.pad(x, ((0, 0), (0, missing), (0, 0), (0, 0)))
  shape = (x.shape[0], tiles.count, tiles.rows, -1, tiles.share, x.shape[-1])
  x = x.reshape(shape).transpose(1, 0, 3, 2, 4, 5)
  return x.reshape(*x.shape[:3], -1, x.shape[-1])


def from_rows(x: jax.Array, tiles: Tiles, length: int) -> jax.Array:
  """The inverse of `to_rows`."""
  count, batch, heads, _, dim = x.shape
  x = x.reshape(count, batch, heads, tiles.rows, tiles.share, dim)
  x = x.transpose(1, 0, 3, 2, 4, 5)
  return x.reshape(batch, count * tiles.rows, -1, dim)[:, :length]


def row_positions(
  tiles: Tiles, block: jax.Array, position: Any
) -> Int[Array, " r"]:
  """The key at which each row of a block of queries stands."""
  token = jnp.arange(tiles.rows * tiles.share) // tiles.share
  return position + block * tiles.rows + token


def num_blocks(tiles: Tiles, block: jax.Array, position: Any) -> Int[Array, ""]:
  """Blocks of keys that a block of queries has to see."""
  last = position + (block + 1) * tiles.rows - 1
  most = -(-tiles.num_keys // tiles.columns)
  return jnp.minimum(last // tiles.columns + 1, most).astype(jnp.int32)


def key_block(
  tiles: Tiles, j: jax.Array, *arrays: Float[Array, "B U G H"]
) -> tuple[jax.Array, Int[Array, " c"], Bool[Array, " c"], list[jax.Array]]:
  """Block `j` of some arrays: first key, indices, which are new, the blocks.

  The last block begins early enough to be a whole one; what the one before it
  has is not new.
  """
  start = jnp.minimum(j * tiles.columns, tiles.num_keys - tiles.columns)
  index = start + jnp.arange(tiles.columns)
  blocks = [
    lax.dynamic_slice_in_dim(x, start, tiles.columns, axis=1) for x in arrays
  ]
  return start, index, index >= j * tiles.columns, blocks


def add_block(total: jax.Array, part: jax.Array, start: jax.Array) -> jax.Array:
  """`total` with a block of keys more, at `start`."""
  old = lax.dynamic_slice_in_dim(total, start, part.shape[1], axis=1)
  return lax.dynamic_update_slice_in_dim(total, old + part, start, axis=1)


def scores(rows: Rows, keys: Block) -> Float[Array, "B G r c"]:
  """Products of queries and keys, float32."""
  return jnp.einsum(
    "bgrh,bcgh->bgrc", rows, keys, preferred_element_type=jnp.float32
  )


def mix(share: Float[Array, "B G r c"], values: Block) -> jax.Array:
  """Rows of weighted sums of a block, float32."""
  return jnp.einsum(
    "bgrc,bcgh->bgrh",
    share.astype(values.dtype),
    values,
    preferred_element_type=jnp.float32,
  )


def spread(share: Float[Array, "B G r c"], rows: Rows) -> jax.Array:
  """The transpose of `mix`: what each key of a block gets, float32."""
  return jnp.einsum(
    "bgrc,bgrh->bcgh",
    share.astype(rows.dtype),
    rows,
    preferred_element_type=jnp.float32,
  )


def on_own_rows(
  attend: Callable[..., jax.Array],
  query: Float[Array, "B T N H"],
  keys: Float[Array, "B U G H"],
  values: Float[Array, "B U G H"],
  position: Any,
) -> jax.Array:
  """`attend` on each device's rows of the batch and heads.

  Loops over slices of a sequence are split by hand: rows over `data` and
  `fsdp`, heads over `tensor`; the partitioner would have to guess.
  """
  position = jnp.asarray(position, jnp.int32)
  if not can_split():
    return attend(query, keys, values, position)
  rows, heads = split_axes(query.shape[0], keys.shape[2])
  spec = P(rows or None, None, heads, None)
  return jax.shard_map(
    attend,
    in_specs=(spec, spec, spec, P()),
    out_specs=spec,
    check_vma=False,
  )(query, keys, values, position)
