"""Rules of layers: each broken one is a line that says what to do."""

import dataclasses

import pytest

from hsa_jax.config import (
  Config,
  ConfigError,
  LayerConfig,
  Mixer,
  Position,
  config_hash,
  from_dict,
  from_json,
  group_layers,
  lower_layers,
  to_json,
  validate,
)

NOPE = {"mixer": "full", "position": "none"}
ROPE = {"mixer": "full", "position": "absolute_rope"}
STICK = {"mixer": "stick_breaking", "position": "none"}
MAMBA = {"mixer": "mamba2", "mlp": "none"}
GLA = {"mixer": "gla"}


def config(*layers, **model) -> dict:
  return {
    "model": {"layers": layers, **model},
    "data": {"stages": ({"num_steps": 500},)},
  }


@pytest.mark.parametrize(
  "layers",
  [
    (NOPE,),
    (ROPE, {}),
    (STICK,),
    ({}, {}, {"window": 9}, NOPE),
    ({"qk_norm": False},),
    (MAMBA, {}, GLA, {"mlp": "none"}),
  ],
)
def test_good_patterns(layers):
  cfg = from_dict(config(*layers))
  validate(cfg)
  assert from_json(to_json(cfg)) == cfg


@pytest.mark.parametrize(
  ("source", "line"),
  [
    (
      config({"mixer": "full", "position": "alibi"}),
      "model.layers[0].position = 'alibi': is for windows; use"
      " 'absolute_rope', or 'none'",
    ),
    (
      config(position="alibi", window_implementation="splash"),
      "model.window_implementation = 'splash': the kernel adds nothing to its"
      " logits, and position = 'alibi' does; use 'auto' or 'banded'",
    ),
    (
      config({"mixer": "full"}),
      "model.layers[0].position = 'relative_rope': is for windows; the keys of"
      " a full layer are rotated once, by their absolute position: use"
      " 'absolute_rope', or 'none'",
    ),
    (
      config({}, {"mixer": "stick_breaking"}),
      "model.layers[1].position = 'relative_rope': stick-breaking attention"
      " orders keys by itself; use 'none'",
    ),
    (
      config({**NOPE, "window": 8}),
      "model.layers[0].window = 8: a full layer has none; leave it out, or use"
      " mixer = 'window'",
    ),
    (
      config(logit_scale=0.0),
      "model.logit_scale = 0.0: must be above 0",
    ),
    (config({"window": 0}), "model.layers[0].window = 0: must be at least 1"),
    (
      config(*([NOPE] * 13)),
      "model.layers: 13 layers in the pattern, and the model has 12; the last"
      " would never be used",
    ),
    (
      config(NOPE, full_implementation="flash"),
      "model.full_implementation = 'flash': must be one of auto, reference,"
      " blocked, splash, cudnn",
    ),
    (
      config(STICK, full_implementation="splash"),
      "model.full_implementation = 'splash': no kernel of stick-breaking"
      " attention; use 'auto' or 'blocked'",
    ),
    (
      {**config({}, NOPE), "mesh": {"context": 2}},
      "mesh.context = 2: model.layers[1].mixer = 'full' needs the whole"
      " sequence on a device; use mesh.fsdp or mesh.tensor",
    ),
    (
      {**config({"window": 8}), "train": {"window_schedule": ((0, 4),)}},
      "model.layers[0].window = 8: train.window_schedule narrows"
      " model.window_size; leave one of the two out",
    ),
    (
      config(NOPE, rope={"theta": 1e6}),
      "model.rope: is for full layers with position = 'absolute_rope' and reads"
      " with such a model.hsa.position, and there are none; leave it out",
    ),
    (
      config(ROPE, rope={"factor": 4.0}),
      "model.rope.original_length = 0: with model.rope.factor = 4.0 it must be"
      " the tokens of the longest training row",
    ),
    (
      config(ROPE, rope={"factor": 0.5}),
      "model.rope.factor = 0.5: must be at least 1; 1 is off",
    ),
    (
      config(ROPE, rope={"theta": -1.0}),
      "model.rope.theta = -1.0: must not be negative",
    ),
    (
      config(ROPE, rope={"beta_fast": 1.0}),
      "model.rope.beta_fast = 1.0: must be above model.rope.beta_slow = 1.0,"
      " and that above 0",
    ),
    (
      config({**MAMBA, "position": "none"}),
      "model.layers[0].position = 'none': is for attention; a mamba2 layer has"
      " none, leave it out",
    ),
    (
      config({}, {**GLA, "qk_norm": False}),
      "model.layers[1].qk_norm = 'False': is for attention; a gla layer has"
      " none, leave it out",
    ),
    (
      config({**GLA, "window": 8}),
      "model.layers[0].window = 8: a gla layer has none; leave it out, or use"
      " mixer = 'window'",
    ),
    (
      config(GLA, mamba2={"state_dim": 16}),
      "model.mamba2: is for layers with mixer = 'mamba2', and model.layers has"
      " none; leave it out",
    ),
    (
      config(MAMBA, mamba2={"head_dim": 96}),
      "model.mamba2.head_dim = 96: must divide the inner width expand *"
      " embed_dim = 2048",
    ),
    (
      config(MAMBA, mamba2={"num_groups": 3}),
      "model.mamba2.num_groups = 3: must divide the 32 heads, expand *"
      " embed_dim / head_dim",
    ),
    (
      config(MAMBA, mamba2={"chunk_size": 0}),
      "model.mamba2.chunk_size = 0: must be at least 1",
    ),
    (
      config(MAMBA, mamba2={"step_min": 0.2}),
      "model.mamba2.step_min = 0.2: must be above 0 and at most"
      " model.mamba2.step_max = 0.1",
    ),
    (
      config(MAMBA, mamba2={"step_floor": 0.0}),
      "model.mamba2.step_floor = 0.0: must be above 0",
    ),
    (
      config(MAMBA, mamba2={"slope_max": 0.5}),
      "model.mamba2.slope_min = 1.0: must be above 0 and at most"
      " model.mamba2.slope_max = 0.5",
    ),
    (
      config(GLA, gla={"expand_keys": 0.3}),
      "model.gla.expand_keys = 0.3: expand_keys * embed_dim = 307.2 must be a"
      " multiple of model.gla.num_heads = 4",
    ),
    (
      config(GLA, gla={"gate_normalizer": 0.0}),
      "model.gla.gate_normalizer = 0.0: must be above 0",
    ),
    (
      {**config({}, MAMBA), "mesh": {"context": 2}},
      "mesh.context = 2: model.layers[1].mixer = 'mamba2' goes through a row"
      " from its first token to its last on one device; use mesh.fsdp or"
      " mesh.tensor",
    ),
  ],
)
def test_each_broken_rule_is_one_line(source, line):
  with pytest.raises(ConfigError) as caught:
    validate(from_dict(source))
  assert caught.value.problems == [line]


def test_a_misspelt_mixer_is_an_error():
  with pytest.raises(
    ConfigError, match="model.layers.0..mixer = 'ful'.*'full'"
  ):
    from_dict(config({"mixer": "ful"}))


def test_no_pattern_changes_no_hash():
  """Stored results of older runs still belong to their configuration."""
  cfg = Config()
  layers = (LayerConfig(mixer=Mixer.FULL, position=Position.NONE),)
  model = dataclasses.replace(cfg.model, layers=layers)
  assert config_hash(cfg) == "1ad7bc92cdec"
  assert config_hash(dataclasses.replace(cfg, model=model)) != config_hash(cfg)
  for field, value in {
    "block": "parallel",
    "norm": "layer",
    "logit_scale": 0.5,
  }.items():
    other = from_dict({"model": {field: value}})
    assert config_hash(other) != config_hash(cfg), field


def test_the_pattern_is_laid_over_the_whole_depth():
  source = config({}, {}, NOPE, num_lower_layers=4, num_upper_layers=4)
  source["model"]["hsa"] = {"num_groups": 2}
  model = from_dict(source).model
  full = [layer.mixer is Mixer.FULL for layer in lower_layers(model)]
  assert full == [False, False, True, False]
  upper = [
    [layer.mixer is Mixer.FULL for layer in group_layers(model, group)]
    for group in range(2)
  ]
  assert upper == [[False, True], [False, False]]
