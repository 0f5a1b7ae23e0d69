"""Parameters of a model, from its configuration alone; no array is made."""

import dataclasses
from collections.abc import Sequence
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
from hsa_jax.models.mixers import MIXERS, WINDOW


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


def count_parameters(cfg: ModelConfig) -> Counts:
  """Parameters by part; equals the size of the built model."""
  hsa, groups = cfg.hsa, cfg.hsa.num_groups
  on = 1 if groups else 0
  leaders = groups // hsa.groups_per_retrieval
  untied = 0 if cfg.tie_embeddings else cfg.vocab_size * cfg.embed_dim
  return Counts(
    embedding=cfg.vocab_size * cfg.embed_dim,
    lower=_block_parameters(layers_below(cfg)),
    encoder=on * _encoder_parameters(cfg, hsa),
    chunking=on * _chunking_parameters(cfg, hsa),
    retrieval=leaders * _retrieval_parameters(cfg, hsa),
    reads=groups * _read_parameters(cfg, hsa),
    upper=_block_parameters(layers_above(cfg)),
    head=cfg.embed_dim + untied,
  )


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
    layer.mlp is Mlp.GATED for layer in (*layers_below(cfg), *layers_above(cfg))
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


def layers_below(cfg: ModelConfig) -> Sequence[Layer]:
  """Blocks of the lower decoder."""
  return layers_of(cfg, 0, cfg.num_lower_layers)


def layers_above(cfg: ModelConfig) -> Sequence[Layer]:
  """Blocks of the upper decoder, of all groups."""
  return layers_of(cfg, cfg.num_lower_layers, cfg.num_upper_layers)


def _mlp_parameters(cfg: ModelConfig, mlp_dim: int) -> int:
  return 3 * cfg.embed_dim * mlp_dim


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
