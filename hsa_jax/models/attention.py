"""Sliding-window attention and the block around it."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from hsa_jax.config import ModelConfig, Position, Remat
from hsa_jax.models.layers import GatedMlp, RMSNorm, linear, stack
from hsa_jax.models.remat import apply_remat, name_input
from hsa_jax.ops import rope
from hsa_jax.ops.window import window_attention
from hsa_jax.parallel import split_rows
from hsa_jax.types import Limits, WindowCache

# Stacks up to this depth are unrolled: a compile-time choice, no layout.
MAX_UNROLLED_LAYERS = 4


def heads(x: jax.Array, num_heads: int) -> Float[Array, "*lead N H"]:
  """Splits the last axis into heads."""
  return x.reshape(*x.shape[:-1], num_heads, x.shape[-1] // num_heads)


class WindowAttention(nnx.Module):
  """Grouped-query attention to the last W keys, the token's own included.

  Keys are cached before rotation: with `Position.RELATIVE_ROPE` both sides are
  rotated by their offset in the current stretch, exact at any length.
  """

  def __init__(self, cfg: ModelConfig, *, rngs: nnx.Rngs):
    self.cfg = cfg
    kv_dim = cfg.num_kv_heads * cfg.head_dim
    query_dim = cfg.num_heads * cfg.head_dim
    make = functools.partial(
      linear, scale=cfg.init_scale, dtype=cfg.compute_dtype, rngs=rngs
    )
    self.query = make(cfg.embed_dim, query_dim)
    self.key = make(cfg.embed_dim, kv_dim)
    self.value = make(cfg.embed_dim, kv_dim)
    self.out = make(query_dim, cfg.embed_dim)
    if cfg.qk_norm:
      self.query_norm = RMSNorm(cfg.head_dim, eps=cfg.norm_eps)
      self.key_norm = RMSNorm(cfg.head_dim, eps=cfg.norm_eps)

  def __call__(
    self,
    x: Float[Array, "B T D"],
    cache: WindowCache | None,
    position: jax.Array | int,
    limits: Limits,
    count: jax.Array | int | None = None,
  ) -> tuple[Float[Array, "B T D"], WindowCache | None]:
    cfg = self.cfg
    query = heads(self.query(x), cfg.num_heads)
    key = heads(self.key(x), cfg.num_kv_heads)
    value = heads(self.value(x), cfg.num_kv_heads)
    if cfg.qk_norm:
      query, key = self.query_norm(query), self.key_norm(key)
    first_valid = None
    if cache is not None:
      first_valid = cache.keys.shape[1] - cache.length
      key = jnp.concatenate([cache.keys, key], axis=1)
      value = jnp.concatenate([cache.values, value], axis=1)
    rotated_query, rotated_key = self._rotate(query, key, position)
    read = window_attention(
      rotated_query,
      rotated_key,
      value,
      window=cfg.window_size,
      limit=limits.window,
      first_valid=first_valid,
      implementation=cfg.window_implementation,
    )
    read = read.reshape(*x.shape[:-1], -1)
    count = x.shape[1] if count is None else count
    return self.out(read), _advance(cache, key, value, count)

  def _rotate(
    self, query: jax.Array, key: jax.Array, position: jax.Array | int
  ) -> tuple[jax.Array, jax.Array]:
    if self.cfg.position is Position.NONE:
      return query, key
    past = key.shape[1] - query.shape[1]
    offset: Any = np.arange(key.shape[1])
    if self.cfg.position is Position.ABSOLUTE_ROPE:
      offset = jnp.asarray(offset) + position - past
    turn = functools.partial(rope.rotate, theta=self.cfg.rope_theta)
    return turn(query, offset[past:]), turn(key, offset)


def _advance(
  cache: WindowCache | None,
  key: jax.Array,
  value: jax.Array,
  count: jax.Array | int,
) -> WindowCache | None:
  """The cache `count` tokens later; keys beyond those belong to filling."""
  if cache is None:
    return None
  kept = cache.keys.shape[1]
  last = functools.partial(lax.dynamic_slice_in_dim, axis=1)
  seen = jnp.minimum(cache.length + count, kept)
  return WindowCache(last(key, count, kept), last(value, count, kept), seen)


def empty_caches(cfg: ModelConfig, batch: int, count: int) -> WindowCache:
  """Caches of `count` window layers before the first token, stacked."""
  one = empty_cache(cfg, batch)
  return jax.tree.map(lambda x: jnp.stack([x] * count), one)


def empty_cache(cfg: ModelConfig, batch: int) -> WindowCache:
  """The cache of one window layer before the first token."""
  shape = (batch, cfg.window_size - 1, cfg.num_kv_heads, cfg.head_dim)
  dtype = jnp.dtype(cfg.compute_dtype)
  return WindowCache(
    jnp.zeros(shape, dtype), jnp.zeros(shape, dtype), jnp.zeros((), jnp.int32)
  )


class WindowBlock(nnx.Module):
  """`h = x + Attn(norm(x))`, then `h + MLP(norm(h))`."""

  def __init__(self, cfg: ModelConfig, *, rngs: nnx.Rngs):
    self.attention_norm = RMSNorm(cfg.embed_dim, eps=cfg.norm_eps)
    self.attention = WindowAttention(cfg, rngs=rngs)
    self.mlp_norm = RMSNorm(cfg.embed_dim, eps=cfg.norm_eps)
    self.mlp = GatedMlp(
      cfg.embed_dim,
      cfg.mlp_dim,
      scale=cfg.init_scale,
      dtype=cfg.compute_dtype,
      rngs=rngs,
    )

  def __call__(
    self,
    x: Float[Array, "B T D"],
    cache: WindowCache | None,
    position: jax.Array | int,
    limits: Limits,
    count: jax.Array | int | None = None,
  ) -> tuple[Float[Array, "B T D"], WindowCache | None]:
    x = name_input(split_rows(x))
    read, cache = self.attention(
      self.attention_norm(x), cache, position, limits, count
    )
    x = x + read
    return x + self.mlp(self.mlp_norm(x)), cache


def build_blocks(cfg: ModelConfig, key: jax.Array, count: int) -> WindowBlock:
  """`count` window blocks, stacked on a leading layer axis."""
  return stack(lambda k: WindowBlock(cfg, rngs=nnx.Rngs(k)), key, count)


def run_blocks(
  blocks: WindowBlock,
  x: Float[Array, "B T D"],
  caches: WindowCache | None,
  *,
  position: jax.Array | int = 0,
  limits: Limits = Limits(),
  remat: Remat = Remat.NONE,
  count: jax.Array | int | None = None,
) -> tuple[Float[Array, "B T D"], WindowCache | None]:
  """Runs a stack of blocks.

  Args:
    blocks: stacked on a leading layer axis.
    x: the stream.
    caches: what the layers remember, with a leading layer axis; or None.
    position: absolute index of the first token.
    limits: values of the schedules.
    remat: what the backward pass recomputes.
    count: leading tokens of `x` that are real and enter the caches; None: all.

  Returns:
    The stream and the caches after the real tokens.
  """

  def body(hidden: jax.Array, layer: tuple) -> tuple:
    block, cache = layer
    return block(hidden, cache, position, limits, count)

  depth = blocks.mlp_norm.scale.shape[0]
  unroll = depth if depth <= MAX_UNROLLED_LAYERS else 1
  body = apply_remat(body, remat, in_scan=unroll < depth)
  return lax.scan(body, x, (blocks, caches), unroll=unroll)
