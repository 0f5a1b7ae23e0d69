"""Rules of initial states: each broken one is a line that says what to do."""

import pytest

from hsa_jax.config import ConfigError, from_dict, from_json, to_json, validate

GLA = {"mixer": "gla"}


def config(own, *stages, layers=(GLA,)) -> dict:
  stages = stages or ({},)
  return {
    "model": {"layers": layers},
    "data": {"stages": tuple({"num_steps": 500, **s} for s in stages)},
    "train": {"initial_state": own},
  }


@pytest.mark.parametrize(
  "source",
  [
    config({}),
    config({"mode": "random_noise", "noise_std": 0.1}),
    config({"mode": "state_passing", "segments": 2, "reset_every": 64}),
    config({"mode": "tbtt"}, {"stream_steps": 8}),
    config({"segments": 4}),
    config({}, {"stream_steps": 8}, layers=()),
  ],
)
def test_good_ones(source):
  cfg = from_dict(source)
  validate(cfg)
  assert from_json(to_json(cfg)) == cfg


@pytest.mark.parametrize(
  ("source", "line"),
  [
    (
      config({"mode": "random_noise"}, layers=()),
      "train.initial_state: is for recurrent layers (mamba2, gla), and"
      " model.layers has none; leave it out",
    ),
    (
      config({"noise_std": 0.0}),
      "train.initial_state.noise_std = 0.0: must be above 0",
    ),
    (
      config({"fit_decay": 1.0}),
      "train.initial_state.fit_decay = 1.0: must be in [0, 1)",
    ),
    (
      config({"mode": "state_passing", "probability": 0.0}),
      "train.initial_state.probability = 0.0: must be in (0, 1]; for none use"
      " mode = 'zero'",
    ),
    (
      config({"mode": "state_passing", "reset_every": -1}),
      "train.initial_state.reset_every = -1: must not be negative",
    ),
    (
      config({"segments": 3}),
      "data.stages[0].seq_len = 4096: must be a multiple of"
      " train.initial_state.segments = 3; nearest: 4095",
    ),
    (
      config({"segments": 0}),
      "train.initial_state.segments = 0: must be at least 1",
    ),
    (
      config({"mode": "state_passing"}, {}, {"batch_size": 8}),
      "train.initial_state.mode = 'state_passing': hands states from row to"
      " row, so all stages need one batch_size; they have 8, 16",
    ),
    (
      config({"mode": "tbtt"}),
      "data.stages[0].stream_steps = 1: train.initial_state.mode = 'tbtt' needs"
      " rows that go on through the text; set it to their steps",
    ),
    (
      config({"mode": "tbtt", "reset_every": 9}, {"stream_steps": 8}),
      "train.initial_state.reset_every = 9: mode = 'tbtt' goes on through the"
      " text; leave it out, or use mode = 'state_passing'",
    ),
    (
      config({}, {"stream_steps": 0}),
      "data.stages[0].stream_steps = 0: must be at least 1",
    ),
    (
      config({}, {"stream_steps": 4, "neg_sampling_group": 2}),
      "data.stages[0].stream_steps = 4: rows that go on through the text have"
      " one source of task = 'text', neg_sampling_group = 1 and"
      " data.synthetic_mix = 0",
    ),
  ],
)
def test_each_broken_rule_is_one_line(source, line):
  with pytest.raises(ConfigError) as caught:
    validate(from_dict(source))
  assert caught.value.problems == [line]
