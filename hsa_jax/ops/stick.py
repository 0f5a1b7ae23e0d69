"""Stick-breaking attention over the whole context: order without positions.

    A_ij = sigmoid(z_ij) prod_{j<l<i} (1 - sigmoid(z_il)),   z = q k / sqrt(H)

for keys j before the query's own: the nearest key breaks a piece off the stick
first, and what nobody takes goes nowhere. In logarithms,

    log A_ij = z_ij - sum_{j<=l<i} softplus(z_il)

Blocks of keys are walked over from the newest to the oldest with the sum so
far, forwards and backwards, so memory is linear in the length. The derivative,
with g = A dA: dz_il = g_il - sigmoid(z_il) sum_{j<=l} g_ij.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from hsa_jax.ops import reference, tiles
from hsa_jax.ops.tiles import Rows, Tiles

IMPLEMENTATIONS = ("reference", "blocked")


def stick_breaking_attention(
  query: Float[Array, "B T N H"],
  keys: Float[Array, "B U G H"],
  values: Float[Array, "B U G H"],
  *,
  position: Int[Array, ""] | int = 0,
  implementation: str = "auto",
) -> Float[Array, "B T N H"]:
  """Stick-breaking attention to every key before the query's own.

  Query `i` stands at key `position + i` and sees the keys before that one; the
  first token of a sequence reads nothing.

  Args:
    query: queries of `T` consecutive tokens.
    keys: of the tokens before them, of their own, and room: `U >= T`.
    values: like `keys`.
    position: keys before the first query.
    implementation: auto | reference | blocked.

  Returns:
    Head outputs in the dtype of `query`.

  Raises:
    ValueError: for an unknown implementation.

  Cost: that of `full_attention`, and about 32 more operations per score.
  """
  if implementation == "reference":
    out = reference.stick_breaking_attention(
      query, keys, values, position=position
    )
    return out.astype(query.dtype)
  if implementation not in ("auto", *IMPLEMENTATIONS):
    names = ", ".join(IMPLEMENTATIONS)
    raise ValueError(f"implementation {implementation!r}: use one of {names}")
  return tiles.on_own_rows(_blocked, query, keys, values, position)


@jax.custom_vjp
def _blocked(
  query: jax.Array, keys: jax.Array, values: jax.Array, position: Any
) -> jax.Array:
  return _forward(query, keys, values, position)[0]


def _forward(
  query: jax.Array, keys: jax.Array, values: jax.Array, position: Any
) -> tuple[jax.Array, tuple]:
  cut = tiles.tiles_of(query, keys)
  scaled = query * query.shape[-1] ** -0.5
  attend = functools.partial(_attend, cut, keys, values, position)
  blocks = (jnp.arange(cut.count), tiles.to_rows(scaled, cut))
  _, rows = lax.scan(lambda _, x: (None, attend(*x)), None, blocks)
  out = tiles.from_rows(rows, cut, query.shape[1]).astype(query.dtype)
  return out, (query, keys, values, position, out)


def _attend(
  cut: Tiles,
  keys: jax.Array,
  values: jax.Array,
  position: Any,
  block: jax.Array,
  rows: Rows,
) -> jax.Array:
  """Outputs of a block of queries."""
  standing = tiles.row_positions(cut, block, position)
  count = tiles.num_blocks(cut, block, position)

  def step(i: jax.Array, carry: tuple) -> tuple:
    out, spent = carry
    _, index, new, blocks = tiles.key_block(cut, count - 1 - i, keys, values)
    share, _, spent = _break(rows, blocks[0], standing, index, new, spent)
    return out + tiles.mix(share, blocks[1]), spent

  start = (
    jnp.zeros(rows.shape, jnp.float32),
    jnp.zeros(rows.shape[:-1], jnp.float32),
  )
  return lax.fori_loop(0, count, step, start)[0]


def _break(
  rows: jax.Array,
  key: jax.Array,
  standing: jax.Array,
  index: jax.Array,
  new: jax.Array,
  spent: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Weights of a block of keys, sigmoids of its scores, the sum behind it.

  Args:
    rows: queries, scaled.
    key: the block.
    standing: of each row.
    index: of each key.
    new: keys that no other block has.
    spent: sum of softplus over the keys after this block.
  """
  seen = (new[None, :] & (index[None, :] < standing[:, None]))[None, None]
  logits = jnp.where(seen, tiles.scores(rows, key), 0.0)
  cost = jnp.where(seen, jax.nn.softplus(logits), 0.0)
  # Of a key's own and the newer ones: never above zero in all.
  tail = suffix_sum(cost)
  exponent = logits - tail - spent[..., None]
  share = jnp.where(seen, jnp.exp(jnp.minimum(exponent, 0.0)), 0.0)
  pull = jnp.where(seen, jax.nn.sigmoid(logits), 0.0)
  return share, pull, spent + tail[..., 0]


def suffix_sum(x: Float[Array, "*lead c"]) -> Float[Array, "*lead c"]:
  """`y_i = sum_{j >= i} x_j` over the last axis, as two small products.

  A running sum is a sequence of slices that no machine likes; triangles of
  sixteen by sixteen cost 32 operations each, in full float32.
  """
  size = x.shape[-1]
  width = 16 if size % 16 == 0 else size
  parts = x.reshape(*x.shape[:-1], size // width, width)
  total = functools.partial(jnp.einsum, precision=lax.Precision.HIGHEST)
  inner = total("...j,ji->...i", parts, _triangle(width, 0))
  outer = total("...j,ji->...i", inner[..., 0], _triangle(size // width, 1))
  return (inner + outer[..., None]).reshape(x.shape)


def _triangle(size: int, after: int) -> np.ndarray:
  """1 where row j counts for column i: `j >= i + after`."""
  return np.tril(np.ones((size, size), np.float32), -after)


def _backward(saved: tuple, grad: jax.Array) -> tuple:
  query, keys, values, position, out = saved
  cut, scale = tiles.tiles_of(query, keys), query.shape[-1] ** -0.5
  inner = jnp.einsum(
    "btnh,btnh->btn", grad, out, preferred_element_type=jnp.float32
  )
  parts = (
    jnp.arange(cut.count),
    tiles.to_rows(query * scale, cut),
    tiles.to_rows(grad, cut),
    tiles.to_rows(inner[..., None], cut)[..., 0],
  )
  nothing = jnp.zeros(keys.shape, jnp.float32)
  pull = functools.partial(_pull, cut, keys, values, position)
  (of_keys, of_values), rows = lax.scan(pull, (nothing, nothing), parts)
  of_query = tiles.from_rows(rows, cut, query.shape[1]) * scale
  return (
    of_query.astype(query.dtype),
    of_keys.astype(keys.dtype),
    of_values.astype(values.dtype),
    None,
  )


def _pull(
  cut: Tiles,
  keys: jax.Array,
  values: jax.Array,
  position: Any,
  totals: tuple,
  part: tuple,
) -> tuple[tuple, jax.Array]:
  """What a block of queries adds to the gradients of keys and values.

  `older` is the sum of g over the keys not yet walked over: it begins as the
  sum over all of them, which is the product of output and gradient.
  """
  block, rows, grad, inner = part
  standing = tiles.row_positions(cut, block, position)
  count = tiles.num_blocks(cut, block, position)

  def step(i: jax.Array, carry: tuple) -> tuple:
    of_rows, spent, older, of_keys, of_values = carry
    start, index, new, (key, value) = tiles.key_block(
      cut, count - 1 - i, keys, values
    )
    share, pull, spent = _break(rows, key, standing, index, new, spent)
    gained = share * tiles.scores(grad, value)
    tail = suffix_sum(gained)
    moved = gained - pull * (older[..., None] - tail + gained)
    of_rows = of_rows + tiles.mix(moved, key)
    of_keys = tiles.add_block(of_keys, tiles.spread(moved, rows), start)
    of_values = tiles.add_block(of_values, tiles.spread(share, grad), start)
    return of_rows, spent, older - tail[..., 0], of_keys, of_values

  zeros = jnp.zeros(rows.shape, jnp.float32)
  first = (zeros, zeros[..., 0], inner, *totals)
  of_rows, _, _, *after = lax.fori_loop(0, count, step, first)
  return tuple(after), of_rows


_blocked.defvjp(_forward, _backward)
