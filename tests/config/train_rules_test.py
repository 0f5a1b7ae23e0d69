import dataclasses

import pytest

from hsa_jax import config as config_lib
from hsa_jax.config import Config, ConfigError, Guard, TrainConfig, config_hash
from hsa_jax.config.train_rules import training_problems

NEW_FIELDS = {
  "checkpoint_every_s": 60.0,
  "keep_every": 10,
  "keep_best": 2,
  "on_nonfinite": Guard.SKIP,
  "on_spike": Guard.STOP,
  "spike_factor": 3.0,
  "max_skips": 3,
  "diagnose_every": 5,
  "profile_steps": (10, 12),
  "wandb_project": "needles",
}

BAD = [
  ({"checkpoint_every_s": -1.0}, "checkpoint_every_s = -1.0: must not be neg"),
  ({"keep_every": -2}, "train.keep_every = -2: must not be negative"),
  ({"max_skips": -1}, "train.max_skips = -1: must not be negative"),
  ({"diagnose_every": -1}, "train.diagnose_every = -1: must not be negative"),
  ({"on_nonfinite": Guard.IGNORE}, "on_nonfinite = 'ignore'.*'stop' or 'skip'"),
  ({"spike_factor": 1.0}, "spike_factor = 1.0: must be above 1"),
  ({"spike_factor": float("nan")}, "spike_factor = nan: must be above 1"),
  ({"keep_best": 2}, "keep_best = 2: needs validation.*train.eval_every"),
  (
    {"keep_best": 2, "eval_every": 30, "checkpoint_every": 100},
    "checkpoint_every = 100.*multiple of train.eval_every = 30",
  ),
  ({"profile_steps": (5,)}, r"profile_steps = \(5,\): must be \(first, end\)"),
  ({"profile_steps": (1, 4)}, "2 <= first < end <= 1001; step 1 compiles"),
  ({"profile_steps": (7, 7)}, "2 <= first < end"),
  ({"profile_steps": (999, 1002)}, "2 <= first < end <= 1001"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_each_rule_names_field_value_and_fix(changes, message):
  cfg = Config(train=TrainConfig(**changes))
  with pytest.raises(ConfigError, match=message) as error:
    config_lib.validate(cfg)
  assert len(error.value.problems) == 1


def test_what_is_allowed():
  fields = {**NEW_FIELDS, "eval_every": 50, "checkpoint_every": 500}
  assert not list(training_problems(TrainConfig(**fields), 1000))
  assert not list(training_problems(TrainConfig(profile_steps=(2, 1001)), 1000))
  config_lib.validate(Config(train=TrainConfig(**fields)))


def test_older_runs_keep_their_hash():
  old = {
    f.name: f.default
    for f in dataclasses.fields(TrainConfig)
    if f.name not in NEW_FIELDS
  }
  assert config_hash(TrainConfig()) == config_hash(TrainConfig(**old))
  plain = config_hash(TrainConfig())
  for name, value in NEW_FIELDS.items():
    assert config_hash(TrainConfig(**{name: value})) != plain, name


def test_a_configuration_without_the_fields_is_read():
  raw = config_lib.to_dict(Config())
  for name in NEW_FIELDS:
    del raw["train"][name]
  assert config_lib.from_dict(raw) == Config()


def test_they_survive_json():
  cfg = Config(train=TrainConfig(**NEW_FIELDS))
  assert config_lib.from_json(config_lib.to_json(cfg)) == cfg
