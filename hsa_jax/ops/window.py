"""Sliding-window attention with `W` keys per query, its own included."""

import functools
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from hsa_jax.ops import reference
from hsa_jax.ops.context import window_over_context
from hsa_jax.ops.mesh_axes import context_shards
from hsa_jax.ops.softmax import joint_softmax
from hsa_jax.ops.window_splash import TILE, splash_window

IMPLEMENTATIONS = ("reference", "banded", "splash")


class Choice(NamedTuple):
  """An implementation, and why it."""

  name: str
  reason: str


def window_attention(
  query: Float[Array, "B T N H"],
  keys: Float[Array, "B U G H"],
  values: Float[Array, "B U G H"],
  *,
  window: int,
  limit: Int[Array, ""] | None = None,
  first_valid: Int[Array, ""] | None = None,
  slopes: Float[Array, " N"] | None = None,
  implementation: str = "auto",
) -> Float[Array, "B T N H"]:
  """Causal attention to the last `window` keys.

  Keys hold the past of the first query before them: `U = P + T`, query `i`
  stands at key `P + i` and sees keys `P + i - window + 1 .. P + i`.

  Args:
    query: queries of `T` consecutive tokens.
    keys: `P` cached tokens, then those of `query`; `P` is 0 or at least 1.
    values: like `keys`.
    window: W, static.
    limit: traced number of keys in use, at most W, for a schedule of W.
    first_valid: keys before this index are empty cache slots.
    slopes: of ALiBi, one per head: times the distance in tokens they are taken
      from the logits; None: nothing is.
    implementation: auto | reference | banded | splash. On accelerators the
      choice is printed once, with its reason.

  Returns:
    Head outputs in the dtype of `query`.

  Raises:
    ValueError: for an unknown implementation, or one that cannot do this.

  Cost: banded 4*N*H*(W + block) operations per token, no [T, U] array; splash
  rounds T up to a multiple of 128, and writes no logits to memory.
  """
  past = keys.shape[1] - query.shape[1]
  if past == 0 and context_shards(query.shape[1]) > 1:
    attend = functools.partial(
      window_attention, window=window, implementation=implementation
    )
    return window_over_context(
      attend, query, keys, values, window=window, limit=limit, slopes=slopes
    )
  platform = platform_in_use()
  choice = choose_window(
    implementation,
    platform=platform,
    length=query.shape[1],
    has_limit=limit is not None,
    has_slopes=slopes is not None,
  )
  if platform != "cpu":
    say_once("window attention", choice)
  if choice.name == "banded":
    return _banded(query, keys, values, window, limit, first_valid, slopes)
  if choice.name == "splash":
    return splash_window(
      query,
      keys,
      values,
      window=window,
      first_valid=first_valid,
      interpret=platform != "tpu",
    )
  if first_valid is not None:
    raise ValueError("the reference window takes no cache")
  out = reference.window_attention(
    query,
    keys,
    values,
    window=window if limit is None else limit,
    slopes=slopes,
  )
  return out.astype(query.dtype)


def choose_window(
  implementation: str,
  *,
  platform: str,
  length: int,
  has_limit: bool,
  has_slopes: bool = False,
) -> Choice:
  """What `window_attention` runs.

  Args:
    implementation: what was asked for.
    platform: cpu | gpu | tpu.
    length: T, queries of a call.
    has_limit: whether a schedule narrows the window.
    has_slopes: whether logits fall with the distance.

  Raises:
    ValueError: naming what asked for it, and what to use instead.
  """
  if implementation != "auto" and implementation not in IMPLEMENTATIONS:
    names = ", ".join(IMPLEMENTATIONS)
    raise ValueError(f"implementation {implementation!r}: use one of {names}")
  if implementation == "splash":
    if has_limit:
      raise ValueError(
        "window_implementation = 'splash': its window is fixed, and"
        " train.window_schedule narrows it; use 'auto' or 'banded'"
      )
    if has_slopes:
      raise ValueError(
        "window_implementation = 'splash': the kernel adds nothing to its"
        " logits, and position = 'alibi' does; use 'auto' or 'banded'"
      )
    if platform == "gpu":
      raise ValueError(
        "window_implementation = 'splash': a kernel for TPUs, and this is a"
        " gpu; use 'auto' or 'banded'"
      )
  if implementation != "auto":
    return Choice(implementation, "asked for")
  if platform != "tpu":
    return Choice("banded", f"splash is for TPUs, this is a {platform}")
  if has_limit:
    return Choice("banded", "train.window_schedule narrows the window")
  if has_slopes:
    return Choice("banded", "ALiBi, which splash does not add to its logits")
  if length < TILE:
    return Choice(
      "banded", f"fewer queries than a tile of {TILE}, as in decode"
    )
  return Choice("splash", "a TPU, a fixed window")


def platform_in_use() -> str:
  """Of the mesh in use: a program may be compiled for devices not here."""
  device = jax.sharding.get_abstract_mesh().abstract_device
  return device.platform if device is not None else jax.default_backend()


@functools.cache
def say_once(what: str, choice: Choice) -> None:
  """Prints which implementation runs and why, once for each."""
  if jax.process_index() == 0:
    text = f"{what}: {choice.name} ({choice.reason})"
    print(text, file=sys.stderr, flush=True)


def alibi_slopes(num_heads: int) -> Float[np.ndarray, " N"]:
  """`2^(-8 (h + 1) / N)` for head h, float32; arXiv 2108.12409."""
  head = np.arange(1, num_heads + 1)
  return np.exp2(-8.0 * head / num_heads).astype(np.float32)


def band_length(window: int) -> int:
  """Queries per band: short bands make many products, long ones waste keys."""
  return max(window, 32)


def _banded(
  query: jax.Array,
  keys: jax.Array,
  values: jax.Array,
  window: int,
  limit: jax.Array | None,
  first_valid: jax.Array | None,
  slopes: jax.Array | None,
) -> jax.Array:
  """Bands of queries see their own keys and those just before them.

  A band is at least as long as the window, so that one band of past suffices.
  The two parts share one softmax without being joined in memory.
  """
  batch, length, num_heads, head_dim = query.shape
  past = keys.shape[1] - length
  block = min(band_length(window), length)
  count = -(-length // block)
  before = min(past, window - 1) if count == 1 else block
  query = _pad_axis(query * head_dim**-0.5, 0, count * block - length)
  query = _bands(query, block).reshape(
    batch, count, block, keys.shape[2], -1, head_dim
  )
  keys, values = (
    _align(x, past, before, count * block) for x in (keys, values)
  )
  first = (0 if first_valid is None else first_valid) - (past - before)
  reach = window if limit is None else limit
  own = (slice(before, None), block, _seen_own(block, reach))
  old = (
    slice(0, before + (count - 1) * block),
    before,
    _seen_old(count, block, before, reach, first),
  )
  parts = [own, old] if before else [own]
  # The first key of a part stands so many tokens before its band.
  logits = [
    _logits(query, _bands(keys[:, s], n), seen, slopes, past)
    for (s, n, seen), past in zip(parts, (0, before), strict=False)
  ]
  shares = joint_softmax(logits)
  out = sum(
    _mix(share, _bands(values[:, s], n))
    for share, (s, n, _) in zip(shares, parts, strict=True)
  )
  out = jnp.asarray(out).reshape(batch, count * block, num_heads, head_dim)
  return out[:, :length].astype(query.dtype)


def _seen_own(block: int, reach: jax.Array | int) -> jax.Array:
  """Keys of the band itself: [1, 1, block, block]."""
  distance = jnp.arange(block)[:, None] - jnp.arange(block)[None, :]
  return ((distance >= 0) & (distance < reach))[None, None]


def _seen_old(
  count: int,
  block: int,
  before: int,
  reach: jax.Array | int,
  first: jax.Array | int,
) -> jax.Array:
  """Keys before each band: [count, 1, block, before]; `first` exists."""
  band = jnp.arange(count)[:, None, None] * block
  row = jnp.arange(block)[None, :, None] + before
  column = jnp.arange(before)[None, None, :]
  return ((row - column < reach) & (band + column >= first))[:, None]


def _logits(
  query: jax.Array,
  keys: jax.Array,
  seen: jax.Array,
  slopes: jax.Array | None,
  past: int,
) -> jax.Array:
  logits = jnp.einsum(
    "bnighd,bnjgd->bnghij", query, keys, preferred_element_type=jnp.float32
  )
  if slopes is not None:
    row = jnp.arange(query.shape[2], dtype=jnp.float32)[:, None] + past
    distance = row - jnp.arange(keys.shape[2], dtype=jnp.float32)[None]
    per_head = slopes.reshape(query.shape[3:5])[:, :, None, None]
    logits = logits - (per_head * distance[None, None])[None, None]
  return jnp.where(jnp.expand_dims(seen, (0, 3)), logits, -1e30)


def _mix(share: jax.Array, values: jax.Array) -> jax.Array:
  return jnp.einsum(
    "bnghij,bnjgd->bnighd",
    share.astype(values.dtype),
    values,
    preferred_element_type=jnp.float32,
  )


def _align(x: jax.Array, past: int, before: int, length: int) -> jax.Array:
  """Exactly `before` tokens of past, then `length`: trimmed or zero-padded."""
  if past > before:
    x = x[:, past - before :]
  missing = max(before - past, 0)
  return _pad_axis(x, missing, before + length - missing - x.shape[1])


def _pad_axis(x: jax.Array, before: int, after: int) -> jax.Array:
  if before == after == 0:
    return x
  return jnp.pad(x, [(0, 0), (before, after)] + [(0, 0)] * (x.ndim - 2))


def _bands(x: jax.Array, block: int) -> jax.Array:
  """[B, n * block, ...] -> [B, n, block, ...]."""
  return x.reshape(x.shape[0], -1, block, *x.shape[2:])
