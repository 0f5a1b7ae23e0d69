"""Layers that see the whole context, with a cache as long as it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from hsa_jax.config import Position
from hsa_jax.models.absolute import rotate_absolute
from hsa_jax.models.window import Attention
from hsa_jax.ops.cache import KvCache
from hsa_jax.ops.full import full_attention
from hsa_jax.ops.stick import stick_breaking_attention
from hsa_jax.types import Limits


class WholeContext(Attention):
  """What full and stick-breaking attention share: the cache.

  Its room is taken before the first token, for as many tokens as the caller
  says there will be; whoever steps beyond is at fault, see `inference`.

  Attributes:
    operation: `(query, keys, values, position=, implementation=)`.
  """

  operation: Callable[..., jax.Array]

  def __call__(
    self,
    x: Float[Array, "B T D"],
    cache: KvCache | None,
    position: jax.Array | int,
    limits: Limits,
    count: jax.Array | int | None = None,
  ) -> tuple[Float[Array, "B T D"], KvCache | None]:
    del limits  # of windows and of the memory
    query, key, value = self.project(x)
    query, key = self.rotate(query, key, position)
    if cache is None:
      return self.finish(self.attend(query, key, value, 0)), None
    cache = cache.extended(key, value)
    read = self.attend(query, cache.keys, cache.values, cache.length)
    count = x.shape[1] if count is None else count
    return self.finish(read), cache._replace(length=cache.length + count)

  def init_state(self, batch: int, capacity: int = 0) -> KvCache:
    """An empty cache with room for `capacity` tokens.

    Raises:
      ValueError: without a capacity.
    """
    if capacity < 1:
      raise ValueError(
        f"capacity = {capacity}: a layer that sees the whole context needs the"
        " tokens that it will have"
      )
    cfg = self.cfg
    shape = (batch, capacity, cfg.num_kv_heads, cfg.head_dim)
    dtype = jnp.dtype(cfg.compute_dtype)
    return KvCache(
      jnp.zeros(shape, dtype), jnp.zeros(shape, dtype), jnp.zeros((), jnp.int32)
    )

  def rotate(
    self, query: jax.Array, key: jax.Array, position: jax.Array | int
  ) -> tuple[jax.Array, jax.Array]:
    """By the absolute positions of the stretch, if by anything."""
    cfg = self.cfg
    if cfg.position is Position.NONE:
      return query, key
    return (
      rotate_absolute(cfg, query, position),
      rotate_absolute(cfg, key, position),
    )

  def attend(
    self,
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    before: jax.Array | int,
  ) -> jax.Array:
    """Head outputs of queries that stand behind `before` keys."""
    return self.operation(
      query,
      key,
      value,
      position=before,
      implementation=self.cfg.full_implementation,
    )


class FullAttention(WholeContext):
  """Softmax over every key up to the token's own."""

  operation = staticmethod(full_attention)

  def weights(
    self,
    x: Float[Array, "B T D"],
    cache: KvCache,
    position: jax.Array | int,
    rows: Int[Array, " n"],
  ) -> Float[Array, "B N n U"]:
    """The share of every key of the cache in some outputs, for diagnostics.

    Args:
      x: a stretch behind the tokens of the cache, as `__call__` takes it.
      cache: with room for the stretch.
      position: absolute index of the first token.
      rows: indices in the stretch of the tokens whose attention is wanted.
    """
    query, key, value = self.project(x)
    query, key = self.rotate(query, key, position)
    keys = cache.extended(key, value).keys
    query = query[:, rows] * query.shape[-1] ** -0.5
    query = query.reshape(*query.shape[:2], keys.shape[2], -1, keys.shape[3])
    logits = jnp.einsum(
      "bngsh,bugh->bgsnu", query, keys, preferred_element_type=jnp.float32
    )
    standing = (cache.length + rows)[:, None]
    seen = jnp.arange(keys.shape[1])[None, :] <= standing
    share = jax.nn.softmax(jnp.where(seen[None, None, None], logits, -1e30))
    return share.reshape(share.shape[0], -1, *share.shape[3:])


class StickBreakingAttention(WholeContext):
  """Every earlier key in turn, nearest first, breaks off its share."""

  operation = staticmethod(stick_breaking_attention)
