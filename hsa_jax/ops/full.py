"""Causal attention to the whole context, in memory linear in its length.

Pairs of blocks are walked over with an online softmax (arXiv 1805.02867); the
derivative walks over them again, from the logarithm of each row's denominator
alone (arXiv 2205.14135). Blocks that no query sees are never computed.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from hsa_jax.ops import reference, tiles
from hsa_jax.ops.tiles import Rows, Tiles
from hsa_jax.ops.window import Choice, platform_in_use, say_once
from hsa_jax.ops.window_splash import TILE, splash_window

IMPLEMENTATIONS = ("reference", "blocked", "splash", "cudnn")
_UNSEEN = -1e30


def full_attention(
  query: Float[Array, "B T N H"],
  keys: Float[Array, "B U G H"],
  values: Float[Array, "B U G H"],
  *,
  position: Int[Array, ""] | int = 0,
  implementation: str = "auto",
) -> Float[Array, "B T N H"]:
  """Causal attention to every key up to the query's own.

  Query `i` stands at key `position + i` and sees the keys `0 .. position + i`.
  What lies behind is room of a cache, and is never read.

  Args:
    query: queries of `T` consecutive tokens.
    keys: of the tokens before them, of their own, and room: `U >= T`.
    values: like `keys`.
    position: keys before the first query; 0 and `U = T`: a whole sequence.
    implementation: auto | reference | blocked | splash (TPU) | cudnn (GPU). On
      accelerators the choice is printed once, with its reason.

  Returns:
    Head outputs in the dtype of `query`.

  Raises:
    ValueError: for an unknown implementation, or one that cannot do this.

  Cost: blocked 4*N*H operations per token and key, of the blocks up to the
  query's own; no [T, U] array, forwards or backwards.
  """
  platform = platform_in_use()
  starts = isinstance(position, int) and position == 0
  choice = choose_full(
    implementation,
    platform=platform,
    length=query.shape[1],
    whole=starts and keys.shape[1] == query.shape[1],
    half=query.dtype in (jnp.bfloat16, jnp.float16),
  )
  if platform != "cpu":
    say_once("full attention", choice)
  if choice.name == "splash":
    return splash_window(
      query, keys, values, window=None, interpret=platform != "tpu"
    )
  if choice.name == "cudnn":
    return jax.nn.dot_product_attention(
      query, keys, values, is_causal=True, implementation="cudnn"
    )
  if choice.name == "reference":
    out = reference.full_attention(query, keys, values, position=position)
    return out.astype(query.dtype)
  return tiles.on_own_rows(_blocked, query, keys, values, position)


def choose_full(
  implementation: str, *, platform: str, length: int, whole: bool, half: bool
) -> Choice:
  """What `full_attention` runs.

  Args:
    implementation: what was asked for.
    platform: cpu | gpu | tpu.
    length: T, queries of a call.
    whole: whether the queries are the whole sequence.
    half: whether they are of 16 bits.

  Raises:
    ValueError: naming what asked for it, and what to use instead.
  """
  if implementation == "auto":
    return _best(platform, length, whole, half)
  if implementation not in IMPLEMENTATIONS:
    names = ", ".join(IMPLEMENTATIONS)
    raise ValueError(f"implementation {implementation!r}: use one of {names}")
  # The kernel for TPUs also runs step by step on a CPU, for tests.
  homes = {"splash": ("tpu", "cpu"), "cudnn": ("gpu",)}
  home, *others = homes.get(implementation, (platform,))
  if platform not in (home, *others):
    raise ValueError(
      f"full_implementation = {implementation!r}: a kernel for {home}s, and"
      f" this is a {platform}; use 'auto' or 'blocked'"
    )
  if implementation == "cudnn" and not half:
    raise ValueError(
      "full_implementation = 'cudnn': computes in 16 bits; set compute_dtype ="
      " 'bfloat16', or use 'auto' or 'blocked'"
    )
  if implementation in ("splash", "cudnn") and not whole:
    return Choice("blocked", f"{implementation} has no cache")
  return Choice(implementation, "asked for")


def _best(platform: str, length: int, whole: bool, half: bool) -> Choice:
  if platform == "cpu" or not whole:
    return Choice("blocked", "kernels are for whole sequences on accelerators")
  if platform == "tpu" and length >= TILE:
    return Choice("splash", "a TPU, a whole sequence")
  if platform == "gpu" and half:
    return Choice("cudnn", "a GPU, a whole sequence of 16 bits")
  return Choice("blocked", "no kernel for this length or type")


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
  _, (rows, mass) = lax.scan(lambda _, x: (None, attend(*x)), None, blocks)
  out = tiles.from_rows(rows, cut, query.shape[1]).astype(query.dtype)
  return out, (query, keys, values, position, out, mass)


def _attend(
  cut: Tiles,
  keys: jax.Array,
  values: jax.Array,
  position: Any,
  block: jax.Array,
  rows: Rows,
) -> tuple[jax.Array, jax.Array]:
  """Outputs of a block of queries, and the logarithms of denominators."""
  standing = tiles.row_positions(cut, block, position)

  def step(j: jax.Array, carry: tuple) -> tuple:
    out, top, total = carry
    _, index, new, (key, value) = tiles.key_block(cut, j, keys, values)
    logits = _logits(rows, key, standing, index, new)
    higher = jnp.maximum(top, jnp.max(logits, axis=-1))
    share = jnp.exp(logits - higher[..., None])
    fade = jnp.exp(top - higher)
    out = out * fade[..., None] + tiles.mix(share, value)
    return out, higher, total * fade + jnp.sum(share, axis=-1)

  lead = rows.shape[:-1]
  # Key 0 is in the first block and seen by all: no row stays at `_UNSEEN`.
  start = (
    jnp.zeros(rows.shape, jnp.float32),
    jnp.full(lead, _UNSEEN, jnp.float32),
    jnp.zeros(lead, jnp.float32),
  )
  count = tiles.num_blocks(cut, block, position)
  out, top, total = lax.fori_loop(0, count, step, start)
  return out / total[..., None], top + jnp.log(total)


def _logits(
  rows: jax.Array,
  key: jax.Array,
  standing: jax.Array,
  index: jax.Array,
  new: jax.Array,
) -> jax.Array:
  seen = new[None, :] & (index[None, :] <= standing[:, None])
  return jnp.where(seen[None, None], tiles.scores(rows, key), _UNSEEN)


def _backward(saved: tuple, grad: jax.Array) -> tuple:
  query, keys, values, position, out, mass = saved
  cut, scale = tiles.tiles_of(query, keys), query.shape[-1] ** -0.5
  inner = jnp.einsum(
    "btnh,btnh->btn", grad, out, preferred_element_type=jnp.float32
  )
  parts = (
    jnp.arange(cut.count),
    tiles.to_rows(query * scale, cut),
    tiles.to_rows(grad, cut),
    tiles.to_rows(inner[..., None], cut)[..., 0],
    mass,
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
  """What a block of queries adds to the gradients of keys and values."""
  block, rows, grad, inner, mass = part
  standing = tiles.row_positions(cut, block, position)

  def step(j: jax.Array, carry: tuple) -> tuple:
    of_rows, of_keys, of_values = carry
    start, index, new, (key, value) = tiles.key_block(cut, j, keys, values)
    logits = _logits(rows, key, standing, index, new)
    share = jnp.exp(logits - mass[..., None])
    moved = share * (tiles.scores(grad, value) - inner[..., None])
    of_rows = of_rows + tiles.mix(moved, key)
    of_keys = tiles.add_block(of_keys, tiles.spread(moved, rows), start)
    of_values = tiles.add_block(of_values, tiles.spread(share, grad), start)
    return of_rows, of_keys, of_values

  count = tiles.num_blocks(cut, block, position)
  first = (jnp.zeros(rows.shape, jnp.float32), *totals)
  of_rows, *totals_after = lax.fori_loop(0, count, step, first)
  return tuple(totals_after), of_rows


_blocked.defvjp(_forward, _backward)
