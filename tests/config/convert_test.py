"""Strict conversion: every mistake in one error, each with the way out."""

import json

import pytest
from ml_collections.config_flags import config_path

from hsa_jax import config as config_lib
from hsa_jax.config import (
  Config,
  ConfigError,
  DataConfig,
  Haystack,
  Landmark,
  SourceConfig,
  StageConfig,
  Task,
  TrainConfig,
  differences,
  from_dict,
)

TWO_STAGES = Config(
  data=DataConfig(
    stages=(
      StageConfig("copy", 10, 64, 4, (SourceConfig(task=Task.COPY),)),
      StageConfig("text", 20, 128, 4),
    )
  ),
  train=TrainConfig(top_k_schedule=((0, 2), (5, 8))),
)


def problems_of(source) -> list[str]:
  with pytest.raises(ConfigError) as caught:
    from_dict(source)
  return caught.value.problems


@pytest.mark.parametrize(
  ("source", "line"),
  [
    (
      {"model": {"hsa": {"topk": 4}}},
      "model.hsa.topk = 4: no such field; did you mean 'top_k'?",
    ),
    ({"modl": {}}, "modl = {}: no such field; did you mean 'model'?"),
    (
      {"mesh": {"zzz": 1}},
      "mesh.zzz = 1: no such field; the fields here are data, fsdp, context,"
      " tensor",
    ),
    (
      {"data": {"stages": ({"seqlen": 8},)}},
      "data.stages[0].seqlen = 8: no such field; did you mean 'seq_len'?",
    ),
    # A property is not a field.
    (
      {"num_steps": 5},
      "num_steps = 5: no such field; the fields here are model, data,"
      " optimizer, train, mesh",
    ),
  ],
)
def test_unknown_field_names_the_nearest(source, line):
  assert problems_of(source) == [line]


@pytest.mark.parametrize(
  ("source", "line"),
  [
    (
      {"model": {"embed_dim": "32"}},
      "model.embed_dim = '32': must be int, got str",
    ),
    (
      {"model": {"embed_dim": 32.0}},
      "model.embed_dim = 32.0: must be int, got float",
    ),
    ({"train": {"seed": True}}, "train.seed = True: must be int, got bool"),
    (
      {"optimizer": {"eps": False}},
      "optimizer.eps = False: must be float, got bool",
    ),
    (
      {"model": {"qk_norm": 1}},
      "model.qk_norm = 1: must be bool, got int",
    ),
    ({"data": {"stages": 3}}, "data.stages = 3: must be a tuple"),
    ({"model": 3}, "model = 3: must be a group of fields"),
    (
      {"train": {"top_k_schedule": ((0, 2, 1),)}},
      "train.top_k_schedule[0] = (0, 2, 1): must have 2 elements",
    ),
    (
      {"train": {"top_k_schedule": ((0, "2"),)}},
      "train.top_k_schedule[0][1] = '2': must be int, got str",
    ),
  ],
)
def test_wrong_type_names_both_types(source, line):
  assert problems_of(source) == [line]


@pytest.mark.parametrize(
  ("value", "line"),
  [
    ("clss", "'clss': must be one of cls, mean, token; did you mean 'cls'?"),
    (7, "7: must be one of cls, mean, token"),
  ],
)
def test_bad_enum_lists_the_choices(value, line):
  source = {"model": {"hsa": {"landmark": value}}}
  assert problems_of(source) == [f"model.hsa.landmark = {line}"]


def test_all_problems_come_at_once():
  source = {
    "model": {"embed_dim": "32", "hsa": {"landmark": "max", "topk": 1}},
    "data": {"stages": ({"num_step": 1}, {"seq_len": 1.5})},
  }
  keys = [line.split(" = ")[0] for line in problems_of(source)]
  assert keys == [
    "model.embed_dim",
    "model.hsa.landmark",
    "model.hsa.topk",
    "data.stages[0].num_step",
    "data.stages[1].seq_len",
  ]
  with pytest.raises(ConfigError, match="^5 problems in my.py\n  model.embed"):
    from_dict(source, where="my.py")


def test_types_are_kept_and_ints_become_floats():
  cfg = from_dict(
    {
      "model": {"hsa": {"landmark": "mean"}},
      "optimizer": {"learning_rate": 1},
      "data": {"stages": [{"sources": [{"haystack": "noise"}]}]},
    }
  )
  assert cfg.model.hsa.landmark is Landmark.MEAN
  assert isinstance(cfg.optimizer.learning_rate, float)
  assert cfg.data.stages[0].sources[0].haystack is Haystack.NOISE
  assert cfg.model.embed_dim == Config().model.embed_dim


@pytest.mark.parametrize("cfg", [Config(), TWO_STAGES])
def test_round_trips(cfg):
  assert config_lib.from_json(config_lib.to_json(cfg)) == cfg
  assert from_dict(config_lib.to_config_dict(cfg)) == cfg
  assert from_dict(json.loads(json.dumps(config_lib.to_dict(cfg)))) == cfg


def test_hash_follows_the_fields():
  same = config_lib.from_json(config_lib.to_json(TWO_STAGES))
  assert config_lib.config_hash(same) == config_lib.config_hash(TWO_STAGES)
  assert config_lib.config_hash(Config()) != config_lib.config_hash(TWO_STAGES)


def test_hash_of_stored_results():
  """Fields added since do not count while they are at their default."""
  assert config_lib.config_hash(Config()) == "1ad7bc92cdec"
  mixed = from_dict({"data": {"synthetic_mix": 0.05}})
  assert config_lib.config_hash(mixed) != config_lib.config_hash(Config())
  assert config_lib.to_dict(Config())["data"]["synthetic_mix"] == 0


def test_override_of_a_stage():
  """What `--config.data.stages[1].num_steps=7` does."""
  source = config_lib.to_config_dict(TWO_STAGES)
  config_path.set_value("data.stages[1].num_steps", source, 7)
  cfg = from_dict(source)
  assert differences(TWO_STAGES, cfg) == ["data.stages[1].num_steps: 20 -> 7"]
  assert cfg.num_steps == 17


def test_override_of_a_source_in_a_stage():
  source = config_lib.to_config_dict(TWO_STAGES)
  config_path.set_value("data.stages[0].sources[0].weight", source, 2.5)
  assert from_dict(source).data.stages[0].sources[0].weight == 2.5


def test_no_differences_between_equals():
  assert differences(TWO_STAGES, TWO_STAGES) == []
  assert differences(Config(), from_dict({})) == []


def test_differences_name_fields_of_every_depth():
  new = from_dict(
    {
      "model": {"hsa": {"landmark": "mean"}},
      "train": {"top_k_schedule": ((0, 4),)},
      "mesh": {"fsdp": 2},
    }
  )
  assert differences(Config(), new) == [
    "model.hsa.landmark: cls -> mean",
    "train.top_k_schedule: () -> (absent)",
    "mesh.fsdp: 1 -> 2",
    "train.top_k_schedule[0][0]: (absent) -> 0",
    "train.top_k_schedule[0][1]: (absent) -> 4",
  ]


def test_differences_show_added_and_removed_stages():
  one = Config(data=DataConfig(stages=TWO_STAGES.data.stages[:1]))
  two = Config(data=TWO_STAGES.data)
  added = differences(one, two)
  assert "data.stages[1].name: (absent) -> text" in added
  assert "data.stages[1].num_steps: 20 -> (absent)" in differences(two, one)
  assert all(line.startswith("data.stages[1].") for line in added)
