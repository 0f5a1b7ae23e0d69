"""The chunk encoder: hidden states of a chunk -> landmark, keys, values.

An expressive, non-linear encoder is the method's first principle: the ideal
landmark scores the chunk's attention mass, a log-sum-exp that no mean of keys
can represent. The learned CLS vector, appended at the end of the chunk, frees
the token states from having to serve next-token prediction and retrieval both.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from hsa_jax.config import Landmark, ModelConfig, Position, RetrievalHeads
from hsa_jax.models.absolute import rotate_absolute
from hsa_jax.models.layers import (
  GatedMlp,
  RMSNorm,
  heads,
  linear,
  rms_normalize,
)
from hsa_jax.models.marks import stream_chunk
from hsa_jax.models.remat import name_input
from hsa_jax.ops import rope
from hsa_jax.ops.chunking import split_chunks
from hsa_jax.ops.softmax import softmax
from hsa_jax.parallel import split_chunks_evenly
from hsa_jax.types import ChunkBlock


class EncoderLayer(nnx.Module):
  """Pre-norm bidirectional attention and MLP over the tokens of one chunk."""

  def __init__(self, cfg: ModelConfig, *, rngs: nnx.Rngs):
    self.cfg = cfg
    make = functools.partial(
      linear, scale=cfg.init_scale, dtype=cfg.compute_dtype, rngs=rngs
    )
    kv_dim = cfg.num_kv_heads * cfg.head_dim
    query_dim = cfg.num_heads * cfg.head_dim
    self.attention_norm = RMSNorm(cfg.embed_dim, eps=cfg.norm_eps)
    self.query = make(cfg.embed_dim, query_dim)
    self.key = make(cfg.embed_dim, kv_dim)
    self.value = make(cfg.embed_dim, kv_dim)
    self.out = make(query_dim, cfg.embed_dim)
    self.query_norm = RMSNorm(cfg.head_dim, eps=cfg.norm_eps)
    self.key_norm = RMSNorm(cfg.head_dim, eps=cfg.norm_eps)
    self.mlp_norm = RMSNorm(cfg.embed_dim, eps=cfg.norm_eps)
    self.mlp = GatedMlp(
      cfg.embed_dim,
      cfg.hsa.encoder_mlp_dim,
      scale=cfg.init_scale,
      dtype=cfg.compute_dtype,
      rngs=rngs,
    )

  def __call__(self, x: Float[Array, "M E D"]) -> Float[Array, "M E D"]:
    """`M` chunks of `E` positions each; positions restart in every chunk."""
    x = x + self._attend(self.attention_norm(x))
    return x + self.mlp(self.mlp_norm(x))

  def _attend(self, x: jax.Array) -> jax.Array:
    cfg = self.cfg
    positions = np.arange(x.shape[1])
    turn = functools.partial(
      rope.rotate, positions=positions, theta=cfg.rope_theta
    )
    query = turn(self.query_norm(heads(self.query(x), cfg.num_heads)))
    key = turn(self.key_norm(heads(self.key(x), cfg.num_kv_heads)))
    value = heads(self.value(x), cfg.num_kv_heads)
    share = cfg.num_heads // cfg.num_kv_heads
    query = query.reshape(
      *query.shape[:2], cfg.num_kv_heads, share, cfg.head_dim
    )
    logits = jnp.einsum(
      "mighd,mjgd->mghij", query, key, preferred_element_type=jnp.float32
    )
    attend, _ = softmax(logits * cfg.head_dim**-0.5)
    read = jnp.einsum("mghij,mjgd->mighd", attend.astype(value.dtype), value)
    return self.out(read.reshape(*x.shape[:2], cfg.num_heads * cfg.head_dim))


class ChunkEncoder(nnx.Module):
  """Encodes complete chunks; see the variants in `config.HsaConfig`."""

  def __init__(self, cfg: ModelConfig, *, rngs: nnx.Rngs):
    hsa = cfg.hsa
    self.cfg = cfg
    make = functools.partial(
      linear, scale=cfg.init_scale, dtype=cfg.compute_dtype, rngs=rngs
    )
    memory_dim = hsa.num_memory_heads * cfg.head_dim
    self.layers = nnx.List(
      [EncoderLayer(cfg, rngs=rngs) for _ in range(hsa.encoder_layers)]
    )
    self.norm = RMSNorm(cfg.embed_dim, eps=cfg.norm_eps)
    self.key = make(cfg.embed_dim, memory_dim)
    self.value = make(cfg.embed_dim, memory_dim)
    if hsa.landmark_projection:
      self.landmark = make(cfg.embed_dim, hsa.landmark_dim)
    if hsa.encoder_prenorm:
      self.prenorm = RMSNorm(cfg.embed_dim, eps=cfg.norm_eps)
    if hsa.qk_norm:
      self.key_norm = RMSNorm(cfg.head_dim, eps=cfg.norm_eps)
    if hsa.landmark is Landmark.CLS:
      init = jax.random.normal(rngs.params(), (cfg.embed_dim,), jnp.float32)
      self.cls = nnx.Param(init * cfg.init_scale)

  def __call__(
    self, hidden: Float[Array, "B T D"], position: jax.Array | int = 0
  ) -> ChunkBlock:
    """Landmarks, keys and values of the complete chunks of `hidden`.

    `position` is the index of its first token; only keys with positions
    (`hsa.position`) depend on it.

    The tail that belongs to no chunk yet is ignored. Of inserted landmark
    tokens, which `hidden` holds (`marks.py`), no keys and values are made.
    """
    hsa = self.cfg.hsa
    hidden = name_input(hidden)
    chunks = split_chunks(hidden, chunk_size=stream_chunk(self.cfg))
    batch, count = chunks.shape[:2]
    # Sizes are spelt out: a sequence shorter than a chunk has none of them.
    chunks = chunks.reshape(batch * count, *chunks.shape[2:])
    tokens, summary = self._encode(split_chunks_evenly(chunks))
    key = heads(self.key(tokens), hsa.num_memory_heads)
    if hsa.qk_norm:
      key = self.key_norm(key)
    if hsa.position is not Position.NONE:
      row = key.reshape(batch, count * key.shape[1], *key.shape[2:])
      key = rotate_absolute(self.cfg, row, position).reshape(key.shape)
    value = heads(self.value(tokens), hsa.num_memory_heads)
    if hsa.landmark_projection:
      summary = self.landmark(summary)
    landmark = heads(summary, retrieval_heads(self.cfg))
    if hsa.landmark_norm:
      wide = landmark.astype(jnp.float32)
      landmark = rms_normalize(wide, eps=self.cfg.norm_eps)
    return ChunkBlock(
      *(x.reshape(batch, count, *x.shape[1:]) for x in (landmark, key, value))
    )

  def _encode(
    self, x: Float[Array, "M E D"]
  ) -> tuple[Float[Array, "M S D"], Float[Array, "M D"]]:
    """Encoded tokens, and the vector that the landmark is made of."""
    hsa = self.cfg.hsa
    if hsa.landmark is Landmark.CLS:
      cls = jnp.broadcast_to(self.cls[...], (x.shape[0], 1, x.shape[2]))
      x = jnp.concatenate([x, cls.astype(x.dtype)], axis=1)
    if hsa.encoder_prenorm:
      x = self.prenorm(x)
    for layer in self.layers:
      x = layer(x)
    x = self.norm(x)
    if hsa.landmark is Landmark.MEAN:
      return x, jnp.mean(x, axis=1)
    return x[:, :-1], x[:, -1]


def retrieval_heads(cfg: ModelConfig) -> int:
  """Independent selections per token and group."""
  if cfg.hsa.retrieval_heads is RetrievalHeads.SINGLE:
    return 1
  return cfg.hsa.num_memory_heads
