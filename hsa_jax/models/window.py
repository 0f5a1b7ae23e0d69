"""Attention as a layer: projections, norms, and the sliding window."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from hsa_jax.config import ModelConfig, Position
from hsa_jax.models.layers import RMSNorm, heads, linear
from hsa_jax.ops import rope
from hsa_jax.ops.window import alibi_slopes, window_attention
from hsa_jax.types import Limits, WindowCache


class Attention(nnx.Module):
  """Grouped queries, keys and values of a stretch, and the way back.

  What attends to what, and what is remembered, its heirs say.
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

  def project(
    self, x: Float[Array, "B T D"]
  ) -> tuple[
    Float[Array, "B T N H"], Float[Array, "B T G H"], Float[Array, "B T G H"]
  ]:
    """Queries, keys and values, not rotated."""
    cfg = self.cfg
    query = heads(self.query(x), cfg.num_heads)
    key = heads(self.key(x), cfg.num_kv_heads)
    value = heads(self.value(x), cfg.num_kv_heads)
    if cfg.qk_norm:
      query, key = self.query_norm(query), self.key_norm(key)
    return query, key, value

  def finish(self, read: Float[Array, "B T N H"]) -> Float[Array, "B T D"]:
    """Head outputs back to the stream."""
    return self.out(read.reshape(*read.shape[:2], -1))


class WindowAttention(Attention):
  """Grouped-query attention to the last W keys, the token's own included.

  Keys are cached before rotation: with `Position.RELATIVE_ROPE` both sides are
  rotated by their offset in the current stretch, exact at any length.
  """

  def __call__(
    self,
    x: Float[Array, "B T D"],
    cache: WindowCache | None,
    position: jax.Array | int,
    limits: Limits,
    count: jax.Array | int | None = None,
  ) -> tuple[Float[Array, "B T D"], WindowCache | None]:
    cfg = self.cfg
    query, key, value = self.project(x)
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
      slopes=self._slopes(),
      implementation=cfg.window_implementation,
    )
    count = x.shape[1] if count is None else count
    return self.finish(read), _advance(cache, key, value, count)

  def init_state(self, batch: int, capacity: int = 0) -> WindowCache:
    """What the layer remembers before the first token, of any capacity."""
    del capacity
    cfg = self.cfg
    shape = (batch, cfg.window_size - 1, cfg.num_kv_heads, cfg.head_dim)
    dtype = jnp.dtype(cfg.compute_dtype)
    return WindowCache(
      jnp.zeros(shape, dtype), jnp.zeros(shape, dtype), jnp.zeros((), jnp.int32)
    )

  def _slopes(self) -> jax.Array | None:
    if self.cfg.position is not Position.ALIBI:
      return None
    return jnp.asarray(alibi_slopes(self.cfg.num_heads))

  def _rotate(
    self, query: jax.Array, key: jax.Array, position: jax.Array | int
  ) -> tuple[jax.Array, jax.Array]:
    if self.cfg.position in (Position.NONE, Position.ALIBI):
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
