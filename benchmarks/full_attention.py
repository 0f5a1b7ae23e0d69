"""A causal transformer of the same width: what full attention costs here.

The yardstick of `prefill_decode.py`, and no more than that: one batch row, no
dropout, no training. Blocks are those of `hsa_jax.models` with every key
visible in place of a window. Prefill reads the prompt in one call; a step reads
one token with a cache of keys and values that is written in place.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from hsa_jax.config import ModelConfig
from hsa_jax.models.layers import GatedMlp, RMSNorm, initializer, linear
from hsa_jax.ops.rope import rotate

MLP_TILE = 8_192  # tokens: bounds the widest activations
SCORE_TILE = 512  # queries whose scores exist at once, where XLA computes
STRIPES = 8  # of the causal triangle; a stripe skips the keys after it

Cache = list[tuple[jax.Array, jax.Array]]  # keys, values of every layer


class FullBlock(nnx.Module):
  """Attention over all tokens so far, then the MLP."""

  def __init__(self, cfg: ModelConfig, *, rngs: nnx.Rngs):
    self.cfg = cfg
    options: Any = {
      "scale": cfg.init_scale,
      "dtype": cfg.compute_dtype,
      "rngs": rngs,
    }
    width = cfg.num_heads * cfg.head_dim
    self.norm = RMSNorm(cfg.embed_dim, eps=cfg.norm_eps)
    self.query = linear(cfg.embed_dim, width, **options)
    self.key = linear(cfg.embed_dim, width, **options)
    self.value = linear(cfg.embed_dim, width, **options)
    self.out = linear(width, cfg.embed_dim, **options)
    self.mlp_norm = RMSNorm(cfg.embed_dim, eps=cfg.norm_eps)
    self.mlp = GatedMlp(cfg.embed_dim, cfg.mlp_dim, **options)

  def project(
    self, x: jax.Array, position: jax.Array | int
  ) -> tuple[jax.Array, ...]:
    """Rotated queries and keys, and values, all [1, T, N, H]."""
    normed, length = self.norm(x), x.shape[1]
    shape = (1, length, self.cfg.num_heads, self.cfg.head_dim)
    parts = (self.query, self.key, self.value)
    query, key, value = (part(normed).reshape(shape) for part in parts)
    turn = functools.partial(
      rotate,
      positions=position + jnp.arange(length),
      theta=self.cfg.rope_theta,
    )
    return turn(query), turn(key), value

  def finish(self, x: jax.Array, read: jax.Array) -> jax.Array:
    """What was read joins the stream; the MLP follows."""
    x = x + self.out(read.reshape(*x.shape[:2], -1))
    return x + self.mlp(self.mlp_norm(x))


class FullAttention(nnx.Module):
  """Embedding, blocks, head."""

  def __init__(self, cfg: ModelConfig, *, rngs: nnx.Rngs):
    self.cfg = cfg
    self.embedding = nnx.Embed(
      cfg.vocab_size,
      cfg.embed_dim,
      embedding_init=initializer(cfg.init_scale),
      dtype=jnp.dtype(cfg.compute_dtype),
      rngs=rngs,
    )
    layers = cfg.num_lower_layers + cfg.num_upper_layers
    blocks = [FullBlock(cfg, rngs=rngs) for _ in range(layers)]
    self.blocks = nnx.List(blocks)
    self.norm = RMSNorm(cfg.embed_dim, eps=cfg.norm_eps)

  def prefill(
    self, tokens: jax.Array, *, room: int, implementation: str
  ) -> tuple[jax.Array, Cache]:
    """Logits [1, V] of the last of tokens [1, T], and caches with room."""
    x, caches = self.embedding(tokens), []
    spare = ((0, 0), (0, room - tokens.shape[1]), (0, 0), (0, 0))
    for block in self.blocks:
      query, key, value = block.project(x, 0)
      read = attend_causally(query, key, value, implementation)
      x = _by_tiles(block.finish, x, read)
      caches.append((jnp.pad(key, spare), jnp.pad(value, spare)))
    return self._head(x[:, -1]), caches

  def step(
    self,
    caches: Cache,
    token: jax.Array,
    position: jax.Array,
    *,
    implementation: Any,
  ) -> tuple[jax.Array, Cache]:
    """Logits [1, V] after one token [1], and the caches with it."""
    x, after = self.embedding(token[:, None]), []
    put = functools.partial(lax.dynamic_update_slice_in_dim, axis=1)
    for block, held in zip(self.blocks, caches, strict=True):
      query, *new = block.project(x, position)
      keys, values = (
        put(h, n, position) for h, n in zip(held, new, strict=True)
      )
      read = jax.nn.dot_product_attention(
        query,
        keys,
        values,
        key_value_seq_lengths=jnp.full((1,), position + 1, jnp.int32),
        implementation=implementation,
      )
      x = block.finish(x, read)
      after.append((keys, values))
    return self._head(x[:, 0]), after

  def _head(self, x: jax.Array) -> jax.Array:
    return self.embedding.attend(self.norm(x)).astype(jnp.float32)


class FullPrograms:
  """The compiled prefill and step of one model.

  Attributes:
    room: tokens that the caches hold.
  """

  def __init__(self, model: FullAttention, room: int):
    self.room = room
    # Collected once: walking a module takes Python longer than a small step.
    self._arrays, structure = jax.tree.flatten(model)

    def prefill(arrays: Any, tokens: jax.Array, implementation: str) -> Any:
      model = jax.tree.unflatten(structure, arrays)
      return model.prefill(tokens, room=room, implementation=implementation)

    def step(arrays: Any, caches: Cache, *inputs: Any, **options: Any) -> Any:
      model = jax.tree.unflatten(structure, arrays)
      return model.step(caches, *inputs, **options)

    self._prefill = jax.jit(prefill, static_argnums=2)
    self._step = jax.jit(
      step, donate_argnums=1, static_argnames="implementation"
    )

  def prefill(self, tokens: np.ndarray, implementation: str) -> "FullDecoder":
    """Reads tokens [1, T] and stands ready to continue them."""
    logits, caches = self._prefill(self._arrays, tokens, implementation)
    step = functools.partial(self._step, self._arrays)
    return FullDecoder(step, caches, tokens.shape[1], logits)


class FullDecoder:
  """A sequence that grows token by token, as `inference.Decoder`.

  Attributes:
    logits: of the next token, [1, V] float32.
    position: tokens read so far.
    implementation: of the attention of a step.
  """

  def __init__(
    self, step: Callable, caches: Cache, position: int, logits: jax.Array
  ):
    self._step, self._caches = step, caches
    self.position, self.logits = position, logits
    self.implementation = "xla"

  def step(self, tokens: np.ndarray) -> None:
    """Reads the next token."""
    self.logits, self._caches = self._step(
      self._caches,
      tokens,
      np.int32(self.position),
      implementation=self.implementation,
    )
    self.position += 1


def cache_bytes(cfg: ModelConfig, room: int) -> int:
  """Keys and values of `room` tokens in every layer."""
  layers = cfg.num_lower_layers + cfg.num_upper_layers
  width = cfg.num_heads * cfg.head_dim
  return 2 * layers * room * width * jnp.dtype(cfg.compute_dtype).itemsize


def implementations(dtype: str) -> list[str]:
  """Kernels of this machine's attention, the better for a prefill first."""
  if jax.default_backend() != "gpu":
    return ["xla"]
  probe = jnp.zeros((1, 128, 2, 64), dtype)
  try:
    attend_causally(probe, probe, probe, "cudnn").block_until_ready()
  except Exception:  # of the library's own kinds: no cuDNN, or too old a GPU
    return ["xla"]
  return ["cudnn", "xla"]


def attend_causally(
  query: jax.Array, key: jax.Array, value: jax.Array, implementation: str
) -> jax.Array:
  """Causal attention over [1, T, N, H]; scores never exist all at once."""
  if implementation == "cudnn":
    return jax.nn.dot_product_attention(
      query, key, value, is_causal=True, implementation="cudnn"
    )
  length = query.shape[1]
  size = -(-length // STRIPES)
  stripes = [
    _attend_stripe(query, key, value, start, min(start + size, length))
    for start in range(0, length, size)
  ]
  return jnp.concatenate(stripes, axis=1)


def _attend_stripe(
  query: jax.Array, key: jax.Array, value: jax.Array, start: int, stop: int
) -> jax.Array:
  """The queries `start .. stop - 1` on all keys before `stop`, in tiles."""
  tile = math.gcd(stop - start, SCORE_TILE)

  def attend(first: jax.Array) -> jax.Array:
    rows = lax.dynamic_slice_in_dim(query, first, tile, axis=1)
    seen = first + jnp.arange(tile)[:, None] >= jnp.arange(stop)[None]
    return jax.nn.dot_product_attention(
      rows,
      key[:, :stop],
      value[:, :stop],
      mask=seen[None, None],
      implementation="xla",
    )

  out = lax.map(attend, jnp.arange(start, stop, tile))  # [tiles, 1, tile, N, H]
  return out.reshape(1, stop - start, *query.shape[2:])


def _by_tiles(
  finish: Callable[[jax.Array, jax.Array], jax.Array],
  x: jax.Array,
  read: jax.Array,
) -> jax.Array:
  """`finish` token by token, some thousands at a time."""
  length = x.shape[1]
  tile = math.gcd(length, MLP_TILE)
  if tile == length:
    return finish(x, read)
  parts = [part.reshape(-1, 1, tile, *part.shape[2:]) for part in (x, read)]
  out = lax.map(lambda pair: finish(*pair), tuple(parts))
  return out.reshape(1, length, -1)
