"""Window and full attention by JAX's splash kernel for TPUs.

The kernel visits only the blocks of keys that the window touches, and never
writes logits to memory. Source: `jax.experimental.pallas.ops.tpu`, Apache-2.0.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import (
  splash_attention_kernel as kernels,
)
from jax.experimental.pallas.ops.tpu.splash_attention import (
  splash_attention_mask as masks,
)
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from hsa_jax.ops.mesh_axes import can_split, split_axes

TILE = 128  # of the kernel: lengths are filled up to multiples of it
_BLOCKS = (512, 256, TILE)  # of queries and of keys, the largest that divides


def splash_window(
  query: Float[Array, "B T N H"],
  keys: Float[Array, "B U G H"],
  values: Float[Array, "B U G H"],
  *,
  window: int | None,
  first_valid: Int[Array, ""] | None = None,
  interpret: bool = False,
) -> Float[Array, "B T N H"]:
  """Causal attention to the last `window` keys; see `window_attention`.

  The compiler cannot split a kernel, so it is done here: rows over `data` and
  `fsdp`, heads over `tensor`. Along an axis that does not divide, every device
  computes the same.

  Args:
    query: queries of `T` consecutive tokens.
    keys: those of the past, then of `query`.
    values: like `keys`.
    window: W, static; None: all keys up to the query's own.
    first_valid: keys before this index are empty cache slots.
    interpret: run the kernel's steps as JAX operations, on any backend: for
      tests.

  Returns:
    Head outputs in the dtype of `query`.
  """
  attend = functools.partial(_attend, window=window, interpret=interpret)
  rows, heads = split_axes(query.shape[0], keys.shape[2])
  if first_valid is None:
    first_valid = jnp.zeros((), jnp.int32)
    attend = functools.partial(attend, has_empty=False)
  if not can_split():
    return attend(query, keys, values, first_valid)
  spec = P(rows or None, None, heads, None)
  return jax.shard_map(
    attend,
    in_specs=(spec, spec, spec, P()),
    out_specs=spec,
    check_vma=False,  # a kernel does not say over which axes it varies
  )(query, keys, values, first_valid)


def _attend(
  query: jax.Array,
  keys: jax.Array,
  values: jax.Array,
  first_valid: jax.Array,
  *,
  window: int | None,
  interpret: bool,
  has_empty: bool = True,
) -> jax.Array:
  """What one device computes of its rows and heads."""
  length, past = query.shape[1], keys.shape[1] - query.shape[1]
  rows = _fill(length)
  # Rows that only fill the tile see a key each as well: their own.
  columns = _fill(past + rows)
  query = _to_heads(query * query.shape[-1] ** -0.5, rows)
  keys, values = _to_heads(keys, columns), _to_heads(values, columns)
  segments = None
  if has_empty:
    used = (jnp.arange(columns) >= first_valid).astype(jnp.int32)
    segments = kernels.SegmentIds(jnp.ones(rows, jnp.int32), used)
  kernel = _make_kernel(query.shape[1], rows, columns, window, past, interpret)
  each = jax.vmap(kernel, in_axes=(0, 0, 0, None))
  out = jnp.asarray(each(query, keys, values, segments))
  return out[:, :, :length].swapaxes(1, 2)


def _make_kernel(
  num_heads: int,
  rows: int,
  columns: int,
  window: int | None,
  past: int,
  interpret: bool,
) -> kernels.SplashAttentionKernel:
  block_q, block_kv = _block(rows), _block(columns)
  mask: masks.Mask = masks.CausalMask((rows, columns), offset=past)
  if window is not None:
    mask = masks.LocalMask((rows, columns), (window - 1, 0), offset=past)
  return kernels.make_splash_mha(
    masks.MultiHeadMask([mask] * num_heads),
    block_sizes=kernels.BlockSizes(
      block_q=block_q,
      block_kv=block_kv,
      block_kv_compute=block_kv,
      block_q_dkv=block_q,
      block_kv_dkv=block_kv,
      block_kv_dkv_compute=block_kv,
      block_q_dq=block_q,
      block_kv_dq=block_kv,
    ),
    head_shards=1,
    q_seq_shards=1,
    interpret=interpret,
  )


def _fill(length: int) -> int:
  return -(-length // TILE) * TILE


def _block(length: int) -> int:
  return next(size for size in _BLOCKS if length % size == 0)


def _to_heads(x: jax.Array, length: int) -> jax.Array:
  """[B, T, N, H] -> [B, N, length, H], filled with zeros."""
  x = jnp.pad(x, ((0, 0), (0, length - x.shape[1]), (0, 0), (0, 0)))
  return x.swapaxes(1, 2)
