"""Sliding-window attention with `W` keys per query, its own included."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from hsa_jax.ops import reference

IMPLEMENTATIONS = ("reference", "banded")


def window_attention(
  query: Float[Array, "B T N H"],
  keys: Float[Array, "B U G H"],
  values: Float[Array, "B U G H"],
  *,
  window: int,
  limit: Int[Array, ""] | None = None,
  first_valid: Int[Array, ""] | None = None,
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
    implementation: auto | reference | banded.

  Returns:
    Head outputs in the dtype of `query`.

  Raises:
    ValueError: for an unknown implementation.

  Cost: banded 4*N*H*(W + block) operations per token, no [T, U] array.
  """
  if implementation == "auto":
    implementation = "banded"
  if implementation not in IMPLEMENTATIONS:
    names = ", ".join(IMPLEMENTATIONS)
    raise ValueError(f"implementation {implementation!r}: use one of {names}")
  if implementation == "banded":
    return _banded(query, keys, values, window, limit, first_valid)
  if first_valid is not None:
    raise ValueError("the reference window takes no cache")
  out = reference.window_attention(
    query, keys, values, window=window if limit is None else limit
  )
  return out.astype(query.dtype)


def block_length(window: int, length: int) -> int:
  """Queries per band: short bands waste fewer keys, long ones fewer products."""
  return max(1, min(length, max(window, 32)))


def _banded(
  query: jax.Array,
  keys: jax.Array,
  values: jax.Array,
  window: int,
  limit: jax.Array | None,
  first_valid: jax.Array | None,
) -> jax.Array:
  """Bands of Q queries against the Q + W - 1 keys that they can see."""
  batch, length, num_heads, head_dim = query.shape
  heads, past = keys.shape[2], keys.shape[1] - query.shape[1]
  block = block_length(window, length)
  num_blocks = -(-length // block)
  halo = -(-(window - 1) // block)  # whole blocks of keys before each band
  q = _pad_axis(query, 0, num_blocks * block - length)
  q = q.reshape(batch, num_blocks, block, heads, num_heads // heads, head_dim)
  k, v = (
    _bands(_align(x, past, halo * block, num_blocks * block), block, halo)
    for x in (keys, values)
  )
  logits = jnp.einsum(
    "bnighd,bnjgd->bnghij",
    q,
    k,
    preferred_element_type=jnp.float32,
  )
  seen = _seen(num_blocks, block, halo, window, past, limit, first_valid)
  logits = jnp.where(seen, logits * head_dim**-0.5, -1e30)
  attend = jax.nn.softmax(logits, axis=-1).astype(values.dtype)
  out = jnp.einsum(
    "bnghij,bnjgd->bnighd", attend, v, preferred_element_type=jnp.float32
  )
  out = out.reshape(batch, num_blocks * block, num_heads, head_dim)
  return out[:, :length].astype(query.dtype)


def _seen(
  num_blocks: int,
  block: int,
  halo: int,
  window: int,
  past: int,
  limit: jax.Array | None,
  first_valid: jax.Array | None,
) -> jax.Array:
  """Mask [num_blocks, 1, 1, block, (halo + 1) * block]."""
  row = jnp.arange(block)[:, None]
  column = jnp.arange((halo + 1) * block)[None, :] - halo * block
  distance = row - column
  near = (distance >= 0) & (distance < (window if limit is None else limit))
  key = column[None] + jnp.arange(num_blocks)[:, None, None] * block + past
  exists = key >= (0 if first_valid is None else first_valid)
  return (near[None] & exists)[:, None, None]


def _align(x: jax.Array, past: int, wanted: int, length: int) -> jax.Array:
  """Exactly `wanted` tokens of past, then `length`: trimmed or zero-padded."""
  x = x[:, past - wanted :] if past > wanted else x
  before = wanted - min(past, wanted)
  return _pad_axis(x, before, wanted + length - before - x.shape[1])


def _pad_axis(x: jax.Array, before: int, after: int) -> jax.Array:
  if before == after == 0:
    return x
  return jnp.pad(x, [(0, 0), (before, after)] + [(0, 0)] * (x.ndim - 2))


def _bands(x: jax.Array, block: int, halo: int) -> jax.Array:
  """[B, (halo + n) * block, ...] -> [B, n, (halo + 1) * block, ...]."""
  batch, total = x.shape[:2]
  blocks = x.reshape(batch, total // block, block, *x.shape[2:])
  count = total // block - halo
  parts = [blocks[:, i : i + count] for i in range(halo + 1)]
  return jnp.concatenate(parts, axis=2)
