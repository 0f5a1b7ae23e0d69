"""Parameters and operations of a model, from its configuration alone.

No array is made. Letters: D embed_dim, F mlp_dim, V vocabulary, N query heads,
P kv heads of the window, G memory heads, H head_dim, W window (keys per query,
its own included), S chunk_size, K top_k, R landmark_dim over all heads, b
tokens_per_retrieval, E encoder_layers, Fe encoder_mlp_dim, C chunks, c = 0 with
mean landmarks, which need no token of their own, and 1 else.

Forward operations per token, a multiply-add counting as two:

  block          2 (2 D N H + 2 D P H + 3 D F)  +  4 N H keys
  encoder        E (S + c)/S (2 (2 D N H + 2 D P H + 3 D Fe) + 4 N H (S + c))
  chunk k, v     2 (2 D G H);   landmark  2 D R / S, if it is projected
  retrieval      (2 D R + 2 R chunks) / b
  read           4 D N H  +  4 N H S slots  +  6 D F
  head           2 D V

Useful operations take averages over the positions t of the sequence: keys of
min(t + 1, W) in a window, t + 1 in full and t in stick-breaking attention,
chunks of the visible floor(t / S), slots of min(K, visible); what a mixer costs
is said where it is listed, in `mixers.py` and `recurrent_costs.py`; a block or
read without an MLP lacks its 6 D F. Inserted landmarks are rows of blocks and
reads like tokens; where they retrieve, each does for the chunk behind it.
Executed operations take what the chosen implementations compute: whole key
bands, pairs of blocks, every chunk (scores; the dense read: those before the
end of a tile of queries), every slot. Norms, rotations, softmax and other
elementwise work are not counted. Training costs three times the forward pass;
recomputation (`remat`) is not useful work and is not counted.
Source: arXiv 2510.17196; the conventions of arXiv 2204.02311 appendix B.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

from hsa_jax.config import (
  BlockForm,
  HsaConfig,
  Landmark,
  Layer,
  Mlp,
  ModelConfig,
  Residual,
  RetrievalHeads,
  Weighting,
  layers_of,
)
from hsa_jax.models.marks import (
  asks_ahead,
  mark_every,
  stream_chunk,
  stream_length,
)
from hsa_jax.models.mixers import MIXERS, WINDOW, Kind
from hsa_jax.ops import read as read_ops


class Counts(NamedTuple):
  """Parameters by part of the model.

  Attributes:
    embedding: token table; with tied embeddings also the head's matrix.
    lower: blocks below the memory.
    encoder: chunk encoder with its final norm; the CLS or landmark token.
    chunking: chunk keys, values and landmarks.
    retrieval: norms and query projections of all groups.
    reads: read blocks of all groups, with their MLPs.
    upper: blocks above the memory.
    head: final norm and, if not tied, the output matrix.
  """

  embedding: int
  lower: int
  encoder: int
  chunking: int
  retrieval: int
  reads: int
  upper: int
  head: int

  @property
  def total(self) -> int:
    """All parameters."""
    return sum(self)


class Flops(NamedTuple):
  """Forward operations per token; training takes three times as many.

  Attributes:
    useful: what the method asks for.
    executed: what the implementations compute, masked products included.
    useful_parts: `useful` by the names of `Counts`.
    executed_parts: `executed` likewise.
  """

  useful: float
  executed: float
  useful_parts: dict[str, float]
  executed_parts: dict[str, float]


class Lengths(NamedTuple):
  """Averages per token that the formulas multiply with.

  Attributes:
    keys: of the window of a read block, and of a plain window layer.
    chunks: scored, by each group that retrieves.
    slots: read by a row of the stream, in chunks.
    encoded: share of the tokens in complete chunks.
    asks: retrievals.
    rows: of the stream; above 1 with inserted landmarks.
  """

  keys: float
  chunks: float
  slots: float
  encoded: float
  asks: float = 1.0
  rows: float = 1.0


def count_parameters(cfg: ModelConfig) -> Counts:
  """Parameters by part; equals the size of the built model."""
  hsa, groups = cfg.hsa, cfg.hsa.num_groups
  on = 1 if groups else 0
  leaders = groups // hsa.groups_per_retrieval
  untied = 0 if cfg.tie_embeddings else cfg.vocab_size * cfg.embed_dim
  return Counts(
    embedding=cfg.vocab_size * cfg.embed_dim,
    lower=_block_parameters(_lower(cfg)),
    encoder=on * _encoder_parameters(cfg, hsa),
    chunking=on * _chunking_parameters(cfg, hsa),
    retrieval=leaders * _retrieval_parameters(cfg, hsa),
    reads=groups * _read_parameters(cfg, hsa),
    upper=_block_parameters(_upper(cfg)),
    head=cfg.embed_dim + untied,
  )


def flops_per_token(
  cfg: ModelConfig, seq_len: int, *, backend: str = "cpu"
) -> Flops:
  """Forward operations per token of a sequence of `seq_len` tokens.

  Args:
    cfg: the model.
    seq_len: tokens of the sequence, read by the model in one call.
    backend: what `auto` implementations are resolved for.

  Returns:
    Useful and executed operations, in all and by part.
  """
  rows = stream_length(cfg, seq_len)
  useful = _parts(
    cfg,
    _useful_lengths(cfg, seq_len),
    lambda kind, own: kind.useful_keys(own, rows),
  )
  executed = _parts(
    cfg,
    executed_lengths(cfg, seq_len, backend),
    lambda kind, own: kind.executed_keys(own, rows, backend),
  )
  return Flops(sum(useful.values()), sum(executed.values()), useful, executed)


def training_flops_per_token(cfg: ModelConfig, seq_len: int) -> float:
  """Useful operations per token of one training step: forward, backward."""
  return 3 * flops_per_token(cfg, seq_len).useful


def prefill_flops_per_token(cfg: ModelConfig, context: int = 1 << 62) -> float:
  """Useful operations per token of streaming prefill, far into a context.

  The lower decoder, the chunk encoder and the chunk projections: the upper
  decoder and the head do not run on a prefix (see `docs/concepts.md`). Without
  a memory every block belongs to the lower decoder.

  Args:
    cfg: the model.
    context: tokens before; with layers that see all of it, say how many.
  """
  rows = 1 + 1 / mark_every(cfg) if mark_every(cfg) else 1.0
  window = float(cfg.window_size)
  full = Lengths(window, 0.0, 0.0, encoded=1.0, rows=rows)
  parts = _parts(cfg, full, lambda kind, own: kind.keys_after(own, context))
  last = 0 if cfg.hsa.num_groups else parts["upper"]
  return parts["lower"] + parts["encoder"] + parts["chunking"] + last


def match_parameters(cfg: ModelConfig, target: int) -> ModelConfig:
  """The same model with `mlp_dim` changed so that it has `target` parameters.

  Keeps the two sides of an ablation comparable: what a part removed takes away
  goes into (or comes out of) the MLPs of the blocks that stay.

  Args:
    cfg: the model to resize.
    target: wanted number of parameters.

  Raises:
    ValueError: if no `mlp_dim` >= 1 comes within 1% of the target, or the
      model has no MLPs.
  """
  num_mlps = sum(
    layer.mlp is Mlp.GATED for layer in (*_lower(cfg), *_upper(cfg))
  )
  if cfg.hsa.residual is not Residual.PLAIN:
    num_mlps += cfg.hsa.num_groups
  if not num_mlps:
    raise ValueError(
      "no block has an MLP whose width could change; change num_layers or"
      " embed_dim"
    )
  per_unit = 3 * cfg.embed_dim * num_mlps
  missing = target - count_parameters(cfg).total
  mlp_dim = max(1, cfg.mlp_dim + round(missing / per_unit))
  matched = dataclasses.replace(cfg, mlp_dim=mlp_dim)
  got = count_parameters(matched).total
  if abs(got - target) > 0.01 * target:
    raise ValueError(
      f"mlp_dim = {mlp_dim} gives {got:,} parameters, more than 1% away from"
      f" {target:,}; change num_layers or embed_dim first"
    )
  return matched


def _mlp_parameters(cfg: ModelConfig, mlp_dim: int) -> int:
  return 3 * cfg.embed_dim * mlp_dim


def _lower(cfg: ModelConfig) -> Sequence[Layer]:
  return layers_of(cfg, 0, cfg.num_lower_layers)


def _upper(cfg: ModelConfig) -> Sequence[Layer]:
  return layers_of(cfg, cfg.num_lower_layers, cfg.num_upper_layers)


def _block_parameters(layers: Sequence[Layer]) -> int:
  """Mixer and MLP of each layer, with the norms before them."""
  total = 0
  for mixer, own, mlp in layers:
    total += own.embed_dim + MIXERS[mixer].parameters(own)
    if mlp is Mlp.GATED:
      total += _mlp_parameters(own, own.mlp_dim)
      # Side by side with the mixer an MLP has no norm of its own.
      total += own.embed_dim * (own.block is BlockForm.SEQUENTIAL)
  return total


def _encoder_parameters(cfg: ModelConfig, hsa: HsaConfig) -> int:
  heads = 2 * cfg.num_heads + 2 * cfg.num_kv_heads
  layer = cfg.embed_dim * (2 + heads * cfg.head_dim)
  # Queries and keys of the encoder are always normalised.
  layer += 2 * cfg.head_dim + _mlp_parameters(cfg, hsa.encoder_mlp_dim)
  cls = 0 if hsa.landmark is Landmark.MEAN else cfg.embed_dim
  prenorm = cfg.embed_dim if hsa.encoder_prenorm else 0
  return hsa.encoder_layers * layer + cls + prenorm + cfg.embed_dim


def _chunking_parameters(cfg: ModelConfig, hsa: HsaConfig) -> int:
  width = 2 * hsa.num_memory_heads * cfg.head_dim
  width += hsa.landmark_dim if hsa.landmark_projection else 0
  return cfg.embed_dim * width + (cfg.head_dim if hsa.qk_norm else 0)


def _retrieval_parameters(cfg: ModelConfig, hsa: HsaConfig) -> int:
  single = hsa.retrieval_heads is RetrievalHeads.SINGLE
  head_dim = hsa.landmark_dim // (1 if single else hsa.num_memory_heads)
  norms = 2 * head_dim if hsa.landmark_norm else 0
  slope = 1 if hsa.weighting is Weighting.SOFTMAX_DECAY else 0
  width = hsa.landmark_dim if hsa.landmark_projection else 0
  return cfg.embed_dim * (1 + width) + norms + slope


def _read_parameters(cfg: ModelConfig, hsa: HsaConfig) -> int:
  norms = cfg.embed_dim + (cfg.head_dim if hsa.qk_norm else 0)
  matrices = 2 * cfg.embed_dim * cfg.num_heads * cfg.head_dim
  window = mlp = 0
  if hsa.block_window:
    window = cfg.embed_dim + WINDOW.parameters(cfg)
  if hsa.residual is not Residual.PLAIN:
    mlp = cfg.embed_dim + _mlp_parameters(cfg, cfg.mlp_dim)
  return norms + matrices + mlp + window


def _useful_lengths(cfg: ModelConfig, seq_len: int) -> Lengths:
  """Averages of min(t + 1, W), floor(t / S) and min(K, floor(t / S))."""
  hsa, ahead = cfg.hsa, asks_ahead(cfg)
  size, rows = stream_chunk(cfg), stream_length(cfg, seq_len)
  num_chunks = seq_len // hsa.chunk_size
  asks = rows / hsa.tokens_per_retrieval
  chunks = _sum_visible(rows, size) / hsa.tokens_per_retrieval
  # What landmarks found, the chunk behind them reads: a staircase S later.
  first = size if ahead else 0
  seen = _sum_visible(max(0, rows - first), size)
  # Beyond K visible chunks the excess is again a staircase, K * S later.
  excess = _sum_visible(max(0, rows - first - hsa.top_k * size), size)
  if ahead:
    asks, chunks = num_chunks, num_chunks * (num_chunks - 1) / 2
  return Lengths(
    keys=WINDOW.useful_keys(cfg, rows),
    chunks=chunks / seq_len,
    slots=(seen - excess) / rows,
    encoded=num_chunks * hsa.chunk_size / seq_len,
    asks=asks / seq_len,
    rows=rows / seq_len,
  )


def _sum_visible(length: int, size: int) -> int:
  """Sum of floor(t / size) over t = 0 .. length - 1."""
  whole, tail = divmod(length, size)
  return size * whole * (whole - 1) // 2 + tail * whole


def executed_lengths(cfg: ModelConfig, seq_len: int, backend: str) -> Lengths:
  """What the implementations multiply per token, masked or not.

  Args:
    cfg: the model.
    seq_len: tokens of the sequence.
    backend: what `auto` implementations are resolved for.
  """
  num_chunks = seq_len // cfg.hsa.chunk_size
  implementation = cfg.hsa.implementation
  if implementation == "auto":
    implementation = read_ops.pick_implementation(
      num_chunks=num_chunks, top_k=cfg.hsa.top_k, backend=backend
    )
  rows = stream_length(cfg, seq_len)
  slots = cfg.hsa.top_k if num_chunks else 0
  if implementation == "dense":
    slots = _dense_slots(rows, cfg.hsa.chunk_size, num_chunks)
  useful = _useful_lengths(cfg, seq_len)
  return useful._replace(
    keys=WINDOW.executed_keys(cfg, rows, backend),
    chunks=num_chunks * useful.asks,
    slots=slots,
  )


def _dense_slots(rows: int, size: int, num_chunks: int) -> float:
  """Chunks before the last row of each tile of a causal dense read."""
  tile = read_ops.dense_tile(rows)
  total = 0
  for start in range(0, rows, tile):
    stop = min(start + tile, rows)
    total += (stop - start) * min((stop - 1) // size, num_chunks)
  return total / rows


def _parts(
  cfg: ModelConfig,
  lengths: Lengths,
  keys: Callable[[Kind, ModelConfig], float],
) -> dict[str, float]:
  """Operations per token by part; `keys` of each mixer."""
  hsa, groups, rows = cfg.hsa, cfg.hsa.num_groups, lengths.rows
  on = 1 if groups else 0
  leaders = groups // hsa.groups_per_retrieval
  return {
    "embedding": 0.0,
    "lower": rows * _block_flops(_lower(cfg), keys),
    "encoder": on * lengths.encoded * _encoder_flops(cfg, hsa),
    "chunking": on * lengths.encoded * _chunking_flops(cfg, hsa),
    "retrieval": leaders * _retrieval_flops(cfg, hsa, lengths),
    "reads": groups * rows * _read_flops(cfg, hsa, lengths),
    "upper": rows * _block_flops(_upper(cfg), keys),
    "head": 2.0 * cfg.embed_dim * cfg.vocab_size,
  }


def _block_flops(
  layers: Sequence[Layer], keys: Callable[[Kind, ModelConfig], float]
) -> float:
  total = 0.0
  for mixer, own, mlp in layers:
    kind = MIXERS[mixer]
    total += kind.matrices(own) + kind.per_key(own) * keys(kind, own)
    if mlp is Mlp.GATED:
      total += 6 * own.embed_dim * own.mlp_dim
  return total


def _window_flops(cfg: ModelConfig, keys: float) -> float:
  return WINDOW.matrices(cfg) + WINDOW.per_key(cfg) * keys


def _encoder_flops(cfg: ModelConfig, hsa: HsaConfig) -> float:
  rows = hsa.chunk_size + (0 if hsa.landmark is Landmark.MEAN else 1)
  mlp = 6 * cfg.embed_dim * hsa.encoder_mlp_dim
  layer = _window_flops(cfg, float(rows)) + mlp  # each row sees every row
  return hsa.encoder_layers * layer * rows / hsa.chunk_size


def _chunking_flops(cfg: ModelConfig, hsa: HsaConfig) -> float:
  tokens = 4 * cfg.embed_dim * hsa.num_memory_heads * cfg.head_dim
  if not hsa.landmark_projection:
    return tokens
  return tokens + 2 * cfg.embed_dim * hsa.landmark_dim / hsa.chunk_size


def _retrieval_flops(
  cfg: ModelConfig, hsa: HsaConfig, lengths: Lengths
) -> float:
  query = 2 * cfg.embed_dim * lengths.asks if hsa.landmark_projection else 0
  return hsa.landmark_dim * (query + 2 * lengths.chunks)


def _read_flops(cfg: ModelConfig, hsa: HsaConfig, lengths: Lengths) -> float:
  width = cfg.num_heads * cfg.head_dim
  mlp_dim = 0 if hsa.residual is Residual.PLAIN else cfg.mlp_dim
  matrices = cfg.embed_dim * (4 * width + 6 * mlp_dim)
  scores = 4 * width * hsa.chunk_size * lengths.slots
  window = _window_flops(cfg, lengths.keys) if hsa.block_window else 0
  return matrices + scores + window
