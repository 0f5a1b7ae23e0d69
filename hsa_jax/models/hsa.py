"""Retrieval and read: what a group of the upper decoder begins with."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from hsa_jax.config import (
  ModelConfig,
  Position,
  Residual,
  Weighting,
  WindowOverlap,
)
from hsa_jax.models.absolute import rotate_absolute
from hsa_jax.models.encoder import retrieval_heads
from hsa_jax.models.layers import GatedMlp, RMSNorm, heads, linear
from hsa_jax.models.marks import asks_ahead, stream_chunk, stream_stride
from hsa_jax.models.remat import name_input, name_read, name_selection
from hsa_jax.models.window import WindowAttention
from hsa_jax.ops import read, select
from hsa_jax.ops.chunking import num_visible_chunks
from hsa_jax.ops.weights import chunk_weights
from hsa_jax.parallel import split_rows
from hsa_jax.types import (
  ChunkBlock,
  Limits,
  PRNGKey,
  Searchable,
  Selection,
  WindowCache,
)


class SequenceMemory(NamedTuple):
  """The chunks of the sequence at hand: what training reads from.

  `aligned` promises that query t is token t, as in training.
  """

  block: ChunkBlock
  implementation: str = "auto"
  limit: jax.Array | None = None  # slots in use, by the schedule of K
  noise_key: PRNGKey | None = None
  aligned: bool = False

  def search(
    self, query: jax.Array, *, num_visible: jax.Array, top_k: int
  ) -> Selection:
    """Exact top-k over all chunks of the sequence."""
    return select.select_chunks(
      query,
      self.block.landmarks,
      num_visible=num_visible,
      top_k=top_k,
      limit=self.limit,
      noise_key=self.noise_key,
    )

  def read(
    self,
    query: jax.Array,
    selection: Selection,
    weights: jax.Array | None,
    *,
    sink: int,
  ) -> jax.Array:
    """`ops.read.read_chunks` on the sequence's own keys and values."""
    return read.read_chunks(
      query,
      self.block.keys,
      self.block.values,
      selection,
      weights,
      sink=sink,
      causal=self.aligned,
      implementation=self.implementation,
    )


class Retrieval(nnx.Module):
  """Query of the memory, and the weights of what it found."""

  def __init__(self, cfg: ModelConfig, *, rngs: nnx.Rngs):
    hsa = cfg.hsa
    self.cfg = cfg
    self.norm = RMSNorm(cfg.embed_dim, eps=cfg.norm_eps)
    if hsa.landmark_projection:
      self.query = linear(
        cfg.embed_dim,
        hsa.landmark_dim,
        scale=cfg.init_scale,
        dtype=cfg.compute_dtype,
        rngs=rngs,
      )
    if hsa.landmark_norm:
      head_dim = hsa.landmark_dim // retrieval_heads(cfg)
      self.query_norm = RMSNorm(head_dim, eps=cfg.norm_eps)
      self.landmark_gain = nnx.Param(jnp.ones((head_dim,), jnp.float32))
    if hsa.weighting is Weighting.SOFTMAX_DECAY:
      self.slope = nnx.Param(jnp.zeros((), jnp.float32))

  def make_query(self, x: Float[Array, "B T D"]) -> Float[Array, "B T G R"]:
    """One retrieval query per token and head, in float32."""
    query = self.norm(x)
    if self.cfg.hsa.landmark_projection:
      query = self.query(query)
    query = heads(query, retrieval_heads(self.cfg))
    query = split_rows(query.astype(jnp.float32), tensor=-2)
    if not self.cfg.hsa.landmark_norm:
      return query
    # The memory keeps landmarks normalised but without gain, because groups
    # share it: each group's gain of the landmark side acts on its query.
    return self.query_norm(query) * self.landmark_gain[...][None, None, None]

  def weigh(self, selection: Selection) -> Float[Array, "B T G K"] | None:
    """Weights of the selected chunks; see `ops.weights`."""
    rule = self.cfg.hsa.weighting
    slope = self.slope[...] if rule is Weighting.SOFTMAX_DECAY else None
    return chunk_weights(selection, str(rule), slope=slope)


class Chosen(NamedTuple):
  """What the tokens of a stretch read, one row per memory head.

  Attributes:
    selection: the chunks.
    weights: of each; None where the read itself makes them.
  """

  selection: Selection
  weights: Float[Array, "B T G K"] | None


class HsaBlock(nnx.Module):
  """Retrieve, read, and join the stream by the residual of choice.

  Attributes:
    leads: whether it retrieves; else it reads what a block before it chose.
  """

  def __init__(self, cfg: ModelConfig, *, leads: bool = True, rngs: nnx.Rngs):
    self.cfg, self.leads = cfg, leads
    make = functools.partial(
      linear, scale=cfg.init_scale, dtype=cfg.compute_dtype, rngs=rngs
    )
    query_dim = cfg.num_heads * cfg.head_dim
    if cfg.hsa.block_window:
      self.window_norm = RMSNorm(cfg.embed_dim, eps=cfg.norm_eps)
      self.window = WindowAttention(cfg, rngs=rngs)
    if leads:
      self.retrieval = Retrieval(cfg, rngs=rngs)
    self.read_norm = RMSNorm(cfg.embed_dim, eps=cfg.norm_eps)
    self.query = make(cfg.embed_dim, query_dim)
    self.out = make(query_dim, cfg.embed_dim)
    if cfg.hsa.qk_norm:
      self.query_norm = RMSNorm(cfg.head_dim, eps=cfg.norm_eps)
    if cfg.hsa.residual is Residual.PLAIN:
      return
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
    memory: Searchable,
    position: jax.Array | int,
    limits: Limits,
    chosen: Chosen | None = None,
  ) -> tuple[Float[Array, "B T D"], Chosen]:
    """The whole sequence, and what its tokens read.

    Args:
      x: the stream.
      memory: its chunks.
      position: index of its first row.
      limits: values of the schedules.
      chosen: by the block that leads; None for that block itself.
    """
    entering = name_input(x)
    x, _ = self.attend(entering, None, position, limits)
    if self.leads:
      chosen = self.choose(self.asking(entering, x), memory, position)
    assert chosen is not None, "a block that does not lead is told"
    return self.fuse(x, self.read(x, memory, position, chosen)), chosen

  def asking(
    self, entering: Float[Array, "B T D"], attended: Float[Array, "B T D"]
  ) -> Float[Array, "B T D"]:
    """The states that retrieve: of marks as they enter, for their block."""
    return entering if asks_ahead(self.cfg) else attended

  def attend(
    self,
    x: Float[Array, "B T D"],
    cache: WindowCache | None,
    position: jax.Array | int,
    limits: Limits,
    count: jax.Array | int | None = None,
  ) -> tuple[Float[Array, "B T D"], WindowCache | None]:
    """The block's own sliding window, where it has one."""
    if not self.cfg.hsa.block_window:
      return x, None
    normed = self.window_norm(x)
    local, cache = self.window(normed, cache, position, limits, count)
    return x + local, cache

  def read(
    self,
    x: Float[Array, "B T D"],
    memory: Searchable,
    position: jax.Array | int,
    chosen: Chosen,
  ) -> Float[Array, "B T D"]:
    """H(x): the fused read, projected back to the stream."""
    query = self.read_query(x, position)
    out = memory.read(query, *chosen, sink=self.cfg.hsa.sink)
    return self.project(name_read(out))

  def choose(
    self,
    x: Float[Array, "B T D"],
    memory: Searchable,
    position: jax.Array | int,
  ) -> Chosen:
    """Chunks and weights of each row of the stream."""
    selection = self.select(x, memory, position)
    return Chosen(selection, self.retrieval.weigh(selection))

  def select(
    self,
    x: Float[Array, "B T D"],
    memory: Searchable,
    position: jax.Array | int,
  ) -> Selection:
    """The chunks of each row, one selection per memory head."""
    hsa, length = self.cfg.hsa, x.shape[1]
    stride, ahead = stream_stride(self.cfg), asks_ahead(self.cfg)
    first = stride - 1 if ahead else 0
    query = self.retrieval.make_query(x[:, first::stride])
    visible = self.num_visible(position + jnp.arange(first, length, stride))
    found = memory.search(query, num_visible=visible, top_k=hsa.top_k)
    if stride > 1:
      found = select.repeat_selection(
        found, tokens=stride, length=length, ahead=ahead
      )
    return per_memory_head(name_selection(found), hsa.num_memory_heads)

  def num_visible(self, positions: Int[Array, " T"]) -> Int[Array, " T"]:
    """Chunks that rows at absolute positions of the stream may retrieve."""
    hsa = self.cfg.hsa
    excluded = hsa.window_overlap is WindowOverlap.EXCLUDE
    return num_visible_chunks(
      positions,
      chunk_size=stream_chunk(self.cfg),
      exclude_window=self.cfg.window_size if excluded else 0,
    )

  def read_query(
    self, x: Float[Array, "B T D"], position: jax.Array | int
  ) -> Float[Array, "B T N H"]:
    """What a token asks inside the chunks that it reads."""
    query = heads(self.query(self.read_norm(x)), self.cfg.num_heads)
    if self.cfg.hsa.qk_norm:
      query = self.query_norm(query)
    if self.cfg.hsa.position is Position.NONE:
      return query
    return rotate_absolute(self.cfg, query, position)

  def project(self, read: Float[Array, "B T N H"]) -> Float[Array, "B T D"]:
    """Head outputs back to the stream."""
    return self.out(read.reshape(*read.shape[:2], -1))

  def fuse(
    self, x: Float[Array, "B T D"], retrieved: Float[Array, "B T D"]
  ) -> Float[Array, "B T D"]:
    """Bypass `y = x + M(norm(x + H))`; standard adds H to y; plain has no M."""
    joined = x + retrieved
    if self.cfg.hsa.residual is Residual.PLAIN:
      return joined
    update = self.mlp(self.mlp_norm(joined))
    if self.cfg.hsa.residual is Residual.BYPASS:
      return x + update
    return joined + update


def per_memory_head(selection: Selection, count: int) -> Selection:
  """A single retrieval head serves every memory head."""
  if selection.index.shape[2] == count:
    return selection
  return Selection(*(jnp.repeat(part, count, axis=2) for part in selection))
