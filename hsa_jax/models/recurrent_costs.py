"""What recurrent layers cost, from the configuration alone.

Letters: D embed_dim, E inner width, N heads, P head_dim, Z state_dim, G groups,
K conv_width, Q chunk_size; of GLA Z and P per head, r gate_rank, b block.

  Mamba-2   2 D (2 E + 2 G Z + N) + 2 E D + 2 K (E + 2 G Z) + 4 N P Z
            and, executed for each of the Q tokens of a chunk, 2 G Z + 2 N P
  GLA       2 D (2 N Z + 3 N P + r) + 2 r N Z + 4 N P Z
            and, executed for Q + b tokens, 2 N Z + 2 N P

Useful are the projections and the recurrence itself: a state that is written to
and read from.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from hsa_jax.config import ModelConfig
from hsa_jax.models import gla as gla_layer
from hsa_jax.models import mamba2 as mamba2_layer
from hsa_jax.ops.gla import block_length


class RecurrentCosts(NamedTuple):
  """Of one kind of layer; functions take the configuration of the layer.

  Attributes:
    module: what computes it.
    parameters: of its module.
    per_token: useful operations.
    per_key: operations per token and token of its chunk.
    chunk_keys: `(cfg, seq_len)`, tokens of a chunk, filling included.
    stored_keys: `(cfg, seq_len)`, scores of one chunk and head, all tokens.
    row_bytes: of the state of one row.
    widths: values per token between the projections.
    heads: of the recurrence.
  """

  module: Callable[..., Any]
  parameters: Callable[[ModelConfig], int]
  per_token: Callable[[ModelConfig], float]
  per_key: Callable[[ModelConfig], float]
  chunk_keys: Callable[[ModelConfig, int], float]
  stored_keys: Callable[[ModelConfig, int], float]
  row_bytes: Callable[[ModelConfig], int]
  widths: Callable[[ModelConfig], int]
  heads: Callable[[ModelConfig], int]


class _Mamba2(NamedTuple):
  """E, G Z, N, P Z of a layer, and the channels that are filtered."""

  inner: int
  shared: int
  heads: int
  state: int

  @property
  def filtered(self) -> int:
    return self.inner + 2 * self.shared


def _mamba2(cfg: ModelConfig) -> _Mamba2:
  own = cfg.mamba2
  return _Mamba2(
    mamba2_layer.inner_width(cfg),
    mamba2_layer.shared_width(own),
    mamba2_layer.num_heads(cfg),
    own.head_dim * own.state_dim,
  )


def _mamba2_parameters(cfg: ModelConfig) -> int:
  m = _mamba2(cfg)
  matrices = cfg.embed_dim * (3 * m.inner + 2 * m.shared + m.heads)
  filters = (cfg.mamba2.conv_width + 1) * m.filtered
  return matrices + filters + 3 * m.heads + m.inner


def _mamba2_per_token(cfg: ModelConfig) -> float:
  m = _mamba2(cfg)
  matrices = cfg.embed_dim * (3 * m.inner + 2 * m.shared + m.heads)
  filters = cfg.mamba2.conv_width * m.filtered
  return 2.0 * (matrices + filters) + 4.0 * m.heads * m.state


def _mamba2_row_bytes(cfg: ModelConfig) -> int:
  m = _mamba2(cfg)
  tails = (cfg.mamba2.conv_width - 1) * m.filtered
  size = jnp.dtype(cfg.compute_dtype).itemsize
  return 4 * m.heads * m.state + size * tails


def _mamba2_widths(cfg: ModelConfig) -> int:
  """With the states between chunks, which the derivative starts from."""
  m = _mamba2(cfg)
  states = m.heads * m.state // cfg.mamba2.chunk_size
  return 2 * m.inner + 2 * m.filtered + states


def _filled(seq_len: int, chunk: int) -> float:
  """Tokens of a chunk, for each token of a sequence of whole chunks."""
  chunk = min(chunk, seq_len)
  return chunk * chunk * -(-seq_len // chunk) / seq_len


MAMBA2 = RecurrentCosts(
  module=mamba2_layer.Mamba2,
  parameters=_mamba2_parameters,
  per_token=_mamba2_per_token,
  per_key=lambda cfg: 2.0 * (_mamba2(cfg).shared + _mamba2(cfg).inner),
  chunk_keys=lambda cfg, seq_len: _filled(seq_len, cfg.mamba2.chunk_size),
  stored_keys=lambda cfg, seq_len: min(cfg.mamba2.chunk_size, seq_len) ** 2,
  row_bytes=_mamba2_row_bytes,
  widths=_mamba2_widths,
  heads=lambda cfg: _mamba2(cfg).heads,
)


def _gla_widths(cfg: ModelConfig) -> tuple[int, int]:
  """N Z and N P."""
  return gla_layer.key_width(cfg), gla_layer.value_width(cfg)


def _gla_matrices(cfg: ModelConfig) -> int:
  keys, values = _gla_widths(cfg)
  rank = cfg.gla.gate_rank
  return cfg.embed_dim * (2 * keys + 3 * values + rank) + rank * keys


def _gla_state(cfg: ModelConfig) -> int:
  keys, values = _gla_widths(cfg)
  return keys * values // cfg.gla.num_heads


def _gla_stored(cfg: ModelConfig, seq_len: int) -> float:
  """Scores of a chunk, and the decays of every pair of a block's tokens."""
  chunk, block = (
    min(cfg.gla.chunk_size, seq_len),
    block_length(cfg.gla.chunk_size),
  )
  keys = gla_layer.key_width(cfg) // cfg.gla.num_heads
  return chunk * (chunk + min(block, chunk) * keys)


GLA = RecurrentCosts(
  module=gla_layer.GatedLinearAttention,
  parameters=lambda cfg: (
    _gla_matrices(cfg)
    + gla_layer.key_width(cfg)
    + gla_layer.value_width(cfg) // cfg.gla.num_heads
  ),
  per_token=lambda cfg: 2.0 * _gla_matrices(cfg) + 4.0 * _gla_state(cfg),
  per_key=lambda cfg: 2.0 * sum(_gla_widths(cfg)),
  chunk_keys=lambda cfg, seq_len: (
    _filled(seq_len, cfg.gla.chunk_size)
    + min(block_length(cfg.gla.chunk_size), seq_len)
  ),
  stored_keys=_gla_stored,
  row_bytes=lambda cfg: 4 * _gla_state(cfg),
  widths=lambda cfg: (
    3 * sum(_gla_widths(cfg)) + _gla_state(cfg) // cfg.gla.chunk_size
  ),
  heads=lambda cfg: cfg.gla.num_heads,
)
