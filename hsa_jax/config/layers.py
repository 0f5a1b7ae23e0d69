"""Which layer stands where: the pattern, laid over the depth of a model."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from hsa_jax.config.fields import LayerConfig, Mixer, Mlp, ModelConfig


class Layer(NamedTuple):
  """One layer of a decoder.

  Attributes:
    mixer: how it moves information between tokens.
    cfg: the model's configuration with the layer's own position signal, norm
      and window in it; all that its module depends on, besides the mixer.
    mlp: what follows the mixer.
  """

  mixer: Mixer
  cfg: ModelConfig
  mlp: Mlp = Mlp.GATED


def layers_of(cfg: ModelConfig, first: int, count: int) -> tuple[Layer, ...]:
  """The layers `first .. first + count - 1` of the depth, lower ones first."""
  pattern = cfg.layers or (LayerConfig(),)
  kinds = [_layer(cfg, layer) for layer in pattern]
  return tuple(kinds[i % len(kinds)] for i in range(first, first + count))


def lower_layers(cfg: ModelConfig) -> tuple[Layer, ...]:
  """Those below the memory; all of them, if there is none."""
  upper = 0 if cfg.hsa.num_groups else cfg.num_upper_layers
  return layers_of(cfg, 0, cfg.num_lower_layers + upper)


def group_layers(cfg: ModelConfig, group: int) -> tuple[Layer, ...]:
  """Those that follow one read of the memory."""
  count = cfg.num_upper_layers // cfg.hsa.num_groups
  return layers_of(cfg, cfg.num_lower_layers + group * count, count)


def _layer(cfg: ModelConfig, layer: LayerConfig) -> Layer:
  if layer == LayerConfig():
    return Layer(layer.mixer, cfg)
  own = dataclasses.replace(
    cfg,
    position=cfg.position if layer.position is None else layer.position,
    qk_norm=cfg.qk_norm if layer.qk_norm is None else layer.qk_norm,
    window_size=cfg.window_size if layer.window is None else layer.window,
  )
  return Layer(layer.mixer, own, layer.mlp)
