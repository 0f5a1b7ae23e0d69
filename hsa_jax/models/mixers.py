"""Every mixer there is: its module, and what is known of it without one.

A mixer is a module `(x, state, position, limits, count) -> (y, state)` with
`init_state(batch, capacity)`; it is built from its layer's configuration alone
(`config.layers.Layer`). A new one is a line of `MIXERS`, and nothing else in
the package asks which mixer a layer has.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax.numpy as jnp

from hsa_jax.config import Layer, Mixer, ModelConfig
from hsa_jax.models.full import FullAttention, StickBreakingAttention
from hsa_jax.models.recurrent_costs import GLA, MAMBA2, RecurrentCosts
from hsa_jax.models.window import WindowAttention
from hsa_jax.ops import tiles
from hsa_jax.ops import window as window_ops


class Kind(NamedTuple):
  """A mixer. Functions take the configuration of the layer.

  Attributes:
    module: what computes it.
    reach: tokens before its own that an output depends on; None: all of them.
    grows: whether it remembers every token, in a cache whose room is taken
      beforehand. Where it does not, its state has one size for all contexts,
      though it may hang on all tokens.
    parameters: of its module, without the norm before it.
    matrices: operations per token, whatever the length.
    per_key: operations per token and key.
    useful_keys: mean over a sequence `(cfg, seq_len)` of the keys of a token.
    executed_keys: `(cfg, seq_len, backend)`, those that are multiplied.
    stored_keys: `(cfg, seq_len, backend)`, those whose scores are in memory.
    keys_after: `(cfg, context)`, of the token that ends a context.
    state_bytes: `(cfg, batch, capacity)`, of what it remembers.
    widths: values per token between its projections, for memory estimates.
    heads: whose scores `stored_keys` counts.
  """

  module: Callable[..., Any]
  reach: Callable[[ModelConfig], int | None]
  grows: bool
  parameters: Callable[[ModelConfig], int]
  matrices: Callable[[ModelConfig], float]
  per_key: Callable[[ModelConfig], float]
  useful_keys: Callable[[ModelConfig, int], float]
  executed_keys: Callable[[ModelConfig, int, str], float]
  stored_keys: Callable[[ModelConfig, int, str], float]
  keys_after: Callable[[ModelConfig, int], float]
  state_bytes: Callable[[ModelConfig, int, int], int]
  widths: Callable[[ModelConfig], int]
  heads: Callable[[ModelConfig], int]


def attention_parameters(cfg: ModelConfig) -> int:
  """q, k, v, o, and the norms of q and k."""
  heads = 2 * cfg.num_heads + 2 * cfg.num_kv_heads
  norms = 2 * cfg.head_dim if cfg.qk_norm else 0
  return cfg.embed_dim * heads * cfg.head_dim + norms


def attention_matrices(cfg: ModelConfig) -> float:
  """Operations of q, k, v and o."""
  heads = 2 * cfg.num_heads + 2 * cfg.num_kv_heads
  return 2.0 * cfg.embed_dim * heads * cfg.head_dim


def attention_per_key(cfg: ModelConfig) -> float:
  """A score and a share of the values, over all heads."""
  return 4.0 * cfg.num_heads * cfg.head_dim


def window_keys(cfg: ModelConfig, seq_len: int) -> float:
  """Mean of min(t + 1, W)."""
  window = min(cfg.window_size, seq_len)
  return (window * (window + 1) / 2 + (seq_len - window) * window) / seq_len


def executed_window_keys(cfg: ModelConfig, seq_len: int, backend: str) -> float:
  """Whole bands of keys, or all of them."""
  del backend
  if cfg.window_implementation == "reference":
    return float(seq_len)
  block = min(window_ops.band_length(cfg.window_size), seq_len)
  bands = 1 if seq_len <= block else 2
  padded_queries = -(-seq_len // block) * block
  return bands * block * padded_queries / seq_len


def _full_keys(cfg: ModelConfig, seq_len: int) -> float:
  """Mean of t + 1."""
  del cfg
  return (seq_len + 1) / 2


def _earlier_keys(cfg: ModelConfig, seq_len: int) -> float:
  """Mean of t: a token skips itself."""
  del cfg
  return (seq_len - 1) / 2


def _executed_full_keys(cfg: ModelConfig, seq_len: int, backend: str) -> float:
  """Pairs of blocks up to the queries' own; of kernels the same is assumed."""
  del backend
  if cfg.full_implementation == "reference":
    return float(seq_len)
  rows, columns = _blocks(seq_len)
  pairs = sum(
    min(start + rows - 1, seq_len - 1) // columns + 1
    for start in range(0, seq_len, rows)
  )
  return pairs * rows * columns / seq_len


def _stored_full_keys(cfg: ModelConfig, seq_len: int, backend: str) -> float:
  """One pair of blocks at a time, shared by all tokens."""
  if cfg.full_implementation == "reference":
    return _executed_full_keys(cfg, seq_len, backend)
  rows, columns = _blocks(seq_len)
  return rows * columns / seq_len


def _blocks(seq_len: int) -> tuple[int, int]:
  return min(tiles.ROWS, seq_len), tiles.column_block(seq_len, seq_len)


def _cache_bytes(cfg: ModelConfig, batch: int, capacity: int) -> int:
  """Keys and values of `capacity` tokens."""
  size = jnp.dtype(cfg.compute_dtype).itemsize
  return 2 * batch * capacity * cfg.num_kv_heads * cfg.head_dim * size


WINDOW = Kind(
  module=WindowAttention,
  reach=lambda cfg: cfg.window_size - 1,
  grows=False,
  parameters=attention_parameters,
  matrices=attention_matrices,
  per_key=attention_per_key,
  useful_keys=window_keys,
  executed_keys=executed_window_keys,
  stored_keys=executed_window_keys,
  keys_after=lambda cfg, context: min(cfg.window_size, context),
  state_bytes=lambda cfg, batch, capacity: _cache_bytes(
    cfg, batch, cfg.window_size - 1
  ),
  widths=lambda cfg: 2 * (cfg.num_heads + cfg.num_kv_heads) * cfg.head_dim,
  heads=lambda cfg: cfg.num_heads,
)
FULL = WINDOW._replace(
  module=FullAttention,
  reach=lambda cfg: None,
  grows=True,
  useful_keys=_full_keys,
  executed_keys=_executed_full_keys,
  stored_keys=_stored_full_keys,
  keys_after=lambda cfg, context: context,
  state_bytes=_cache_bytes,
)


def _recurrent(costs: RecurrentCosts) -> Kind:
  """A state that hangs on every token, and has one size for all contexts."""
  return Kind(
    module=costs.module,
    reach=lambda cfg: None,
    grows=False,
    parameters=costs.parameters,
    matrices=costs.per_token,
    per_key=costs.per_key,
    # The recurrence has no keys; its chunks are how it is computed.
    useful_keys=lambda cfg, seq_len: 0.0,
    executed_keys=lambda cfg, seq_len, backend: costs.chunk_keys(cfg, seq_len),
    stored_keys=lambda cfg, seq_len, backend: (
      costs.stored_keys(cfg, seq_len) / seq_len
    ),
    keys_after=lambda cfg, context: 0.0,
    state_bytes=lambda cfg, batch, capacity: batch * costs.row_bytes(cfg),
    widths=costs.widths,
    heads=costs.heads,
  )


MIXERS: dict[Mixer, Kind] = {
  Mixer.WINDOW: WINDOW,
  Mixer.FULL: FULL,
  Mixer.STICK_BREAKING: FULL._replace(
    module=StickBreakingAttention,
    useful_keys=_earlier_keys,
    keys_after=lambda cfg, context: context - 1,
  ),
  Mixer.MAMBA2: _recurrent(MAMBA2),
  Mixer.GLA: _recurrent(GLA),
}


def grows(layer: Layer) -> bool:
  """Whether what a layer remembers grows with every token, without end."""
  return MIXERS[layer.mixer].grows


def reach_of(layers: Iterable[Layer]) -> int | None:
  """Tokens before its own that an output of all these layers depends on.

  None: all of them, however many there are.
  """
  total = 0
  for layer in layers:
    reach = MIXERS[layer.mixer].reach(layer.cfg)
    if reach is None:
      return None
    total += reach
  return total


def state_bytes(layers: Iterable[Layer], *, batch: int, capacity: int) -> int:
  """What these layers remember of contexts of `capacity` tokens."""
  return sum(
    MIXERS[layer.mixer].state_bytes(layer.cfg, batch, capacity)
    for layer in layers
  )
