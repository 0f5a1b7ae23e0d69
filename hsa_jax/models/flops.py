"""Operations of a model, from its configuration alone.

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

from collections.abc import Callable, Sequence
from typing import NamedTuple

from hsa_jax.config import (
  HsaConfig,
  Landmark,
  Layer,
  Mlp,
  ModelConfig,
  Residual,
)
from hsa_jax.models.marks import (
  asks_ahead,
  mark_every,
  stream_chunk,
  stream_length,
)
from hsa_jax.models.mixers import MIXERS, WINDOW, Kind
from hsa_jax.models.parameters import layers_above, layers_below
from hsa_jax.ops import read as read_ops


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
    "lower": rows * _block_flops(layers_below(cfg), keys),
    "encoder": on * lengths.encoded * _encoder_flops(cfg, hsa),
    "chunking": on * lengths.encoded * _chunking_flops(cfg, hsa),
    "retrieval": leaders * _retrieval_flops(cfg, hsa, lengths),
    "reads": groups * rows * _read_flops(cfg, hsa, lengths),
    "upper": rows * _block_flops(layers_above(cfg), keys),
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
