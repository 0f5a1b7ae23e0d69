"""The rules of recurrent layers."""

from collections.abc import Iterator
from typing import Any

from hsa_jax.config.fields import Config, LayerConfig, Mixer, ModelConfig
from hsa_jax.config.recurrent import GlaConfig, Mamba2Config

RECURRENT = (Mixer.MAMBA2, Mixer.GLA)  # a state of constant size


def recurrent_problems(cfg: Config) -> Iterator[str]:
  """One line for every broken rule: field, value, rule, fix."""
  m = cfg.model
  for i, layer in enumerate(m.layers):
    if layer.mixer in RECURRENT:
      yield from _layer(f"model.layers[{i}]", layer)
  present = {layer.mixer for layer in m.layers}
  yield from _group("mamba2", m.mamba2, Mixer.MAMBA2, present)
  yield from _group("gla", m.gla, Mixer.GLA, present)
  if Mixer.MAMBA2 in present:
    yield from _mamba2(m, m.mamba2)
  if Mixer.GLA in present:
    yield from _gla(m, m.gla)
  yield from _context(cfg)


def _layer(key: str, layer: LayerConfig) -> Iterator[str]:
  for name, value in {
    "position": layer.position,
    "qk_norm": layer.qk_norm,
  }.items():
    if value is not None:
      yield (
        f"{key}.{name} = {str(value)!r}: is for attention; a {layer.mixer}"
        " layer has none, leave it out"
      )


def _group(
  name: str, group: Any, mixer: Mixer, present: set[Mixer]
) -> Iterator[str]:
  if mixer not in present and group != type(group)():
    yield (
      f"model.{name}: is for layers with mixer = {str(mixer)!r}, and"
      " model.layers has none; leave it out"
    )


def _at_least_one(name: str, values: dict[str, int]) -> Iterator[str]:
  for key, value in values.items():
    if value < 1:
      yield f"model.{name}.{key} = {value}: must be at least 1"


def _mamba2(m: ModelConfig, own: Mamba2Config) -> Iterator[str]:
  sizes = {
    "expand": own.expand,
    "head_dim": own.head_dim,
    "state_dim": own.state_dim,
    "num_groups": own.num_groups,
    "conv_width": own.conv_width,
    "chunk_size": own.chunk_size,
  }
  yield from _at_least_one("mamba2", sizes)
  if min(sizes.values()) < 1:
    return
  width = own.expand * m.embed_dim
  if width % own.head_dim:
    yield (
      f"model.mamba2.head_dim = {own.head_dim}: must divide the inner width"
      f" expand * embed_dim = {width}"
    )
  elif width // own.head_dim % own.num_groups:
    yield (
      f"model.mamba2.num_groups = {own.num_groups}: must divide the"
      f" {width // own.head_dim} heads, expand * embed_dim / head_dim"
    )
  if not 0 < own.step_min <= own.step_max:
    yield (
      f"model.mamba2.step_min = {own.step_min}: must be above 0 and at most"
      f" model.mamba2.step_max = {own.step_max}"
    )
  if not own.step_floor > 0:
    yield f"model.mamba2.step_floor = {own.step_floor}: must be above 0"
  if not 0 < own.slope_min <= own.slope_max:
    yield (
      f"model.mamba2.slope_min = {own.slope_min}: must be above 0 and at most"
      f" model.mamba2.slope_max = {own.slope_max}"
    )


def _gla(m: ModelConfig, own: GlaConfig) -> Iterator[str]:
  sizes = {
    "num_heads": own.num_heads,
    "gate_rank": own.gate_rank,
    "chunk_size": own.chunk_size,
  }
  yield from _at_least_one("gla", sizes)
  if own.num_heads < 1:
    return
  for name, ratio in {
    "expand_keys": own.expand_keys,
    "expand_values": own.expand_values,
  }.items():
    width = ratio * m.embed_dim
    if width < 1 or width % own.num_heads:
      yield (
        f"model.gla.{name} = {ratio}: {name} * embed_dim = {width:g} must be a"
        f" multiple of model.gla.num_heads = {own.num_heads}"
      )
  if not own.gate_normalizer > 0:
    yield f"model.gla.gate_normalizer = {own.gate_normalizer}: must be above 0"


def _context(cfg: Config) -> Iterator[str]:
  if cfg.mesh.context == 1:
    return
  for i, layer in enumerate(cfg.model.layers):
    if layer.mixer in RECURRENT:
      yield (
        f"mesh.context = {cfg.mesh.context}: model.layers[{i}].mixer ="
        f" {str(layer.mixer)!r} goes through a row from its first token to its"
        " last on one device; use mesh.fsdp or mesh.tensor"
      )
      return
