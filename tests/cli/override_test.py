"""`--override`: what may differ from training, and that results keep apart."""

import dataclasses
import json

import pytest

from hsa_jax.cli import evaluate
from hsa_jax.cli.override_flag import overridden, read_overrides
from hsa_jax.config import (
  Config,
  ConfigError,
  LayerConfig,
  Mixer,
  Position,
  with_overrides,
)
from hsa_jax.evaluation import FlagError
from tests.evaluation.helpers import make_checkpoint, model_config

FULL = LayerConfig(mixer=Mixer.FULL, position=Position.ABSOLUTE_ROPE)
MODEL = model_config({"layers": (FULL,)}, num_groups=0)
YARN = "model.rope.factor=4,model.rope.original_length=64"


def test_fields_are_read_and_set():
  found = read_overrides(f"{YARN}, model.rope.theta=1e6")
  assert found == {
    "model.rope.factor": 4,
    "model.rope.original_length": 64,
    "model.rope.theta": 1e6,
  }
  cfg = Config(model=MODEL)
  rope = overridden(cfg, found).model.rope
  assert (rope.factor, rope.original_length, rope.theta) == (4.0, 64, 1e6)
  assert overridden(cfg, {}) is cfg
  assert overridden(Config(), {"model.hsa.top_k": 3}).model.hsa.top_k == 3


def test_another_k_need_not_obey_the_schedule_of_training():
  cfg = with_overrides(Config(), {"train.top_k_schedule": ((0, 2), (9, 8))})
  changed = overridden(cfg, {"model.hsa.top_k": 4})
  assert changed.model.hsa.top_k == 4 and changed.train.top_k_schedule == ()


@pytest.mark.parametrize(
  ("text", "words"),
  [
    ("model.window_size=4", "'model.window_size' cannot change on a finished"),
    ("model.rope.facter=4", "'model.rope.facter' cannot change"),
    ("model.rope.factor=four", "model.rope.factor='four': must be a number"),
    ("model.rope.factor", "model.rope.factor='': must be a number"),
  ],
)
def test_what_is_refused(text, words):
  with pytest.raises(FlagError, match=words):
    read_overrides(text)


def test_the_changed_configuration_is_checked():
  with pytest.raises(ConfigError, match="model.rope.original_length = 0"):
    overridden(Config(model=MODEL), {"model.rope.factor": 4})
  with pytest.raises(ConfigError, match="and there are none"):
    overridden(Config(), read_overrides(YARN))
  with pytest.raises(ConfigError, match="model.hsa.top_k = 0"):
    overridden(Config(), {"model.hsa.top_k": 0})
  with pytest.raises(ConfigError, match="original_length = 6.5: must be int"):
    overridden(Config(model=MODEL), {"model.rope.original_length": 6.5})


def test_results_with_and_without_do_not_mix(tmp_path, capsys):
  make_checkpoint(tmp_path / "run", MODEL)
  argv = [
    f"--checkpoint={tmp_path / 'run'}",
    "--suites=ppl",
    "--tasks=by_length",
    "--lengths=64,500",
    "--samples=2",
    "--segment=64",
  ]
  assert evaluate.main(argv) == 0
  assert evaluate.main([*argv, f"--override={YARN}"]) == 2
  error = capsys.readouterr().err
  assert "holds the results of another run (config_hash" in error
  other = [*argv, f"--override={YARN}", f"--workdir={tmp_path / 'yarn'}"]
  assert evaluate.main(other) == 0
  infos = [
    json.loads((folder / "run.json").read_text())
    for folder in (tmp_path / "run" / "eval", tmp_path / "yarn")
  ]
  assert infos[0]["config_hash"] != infos[1]["config_hash"]
  assert infos[1]["overrides"] == (
    "model.rope.factor=4, model.rope.original_length=64"
  )
  report = (tmp_path / "yarn" / "report.md").read_text()
  assert "model.rope.factor=4" in report
  nats = [
    [
      json.loads(line)["nats"]
      for line in (folder / "predictions.jsonl").read_text().splitlines()
    ]
    for folder in (tmp_path / "run" / "eval", tmp_path / "yarn")
  ]
  assert len(nats[0]) == len(nats[1]) == 4
  assert nats[0] != nats[1]


def test_ways_of_reading_that_the_model_does_not_allow(tmp_path, capsys):
  plain = dataclasses.replace(MODEL, num_heads=16, num_kv_heads=16)
  make_checkpoint(tmp_path / "run", plain)
  argv = [f"--checkpoint={tmp_path / 'run'}", "--samples=1"]
  assert evaluate.main([*argv, "--lengths=500", "--prefill=halo"]) == 2
  assert "use --prefill=sequential" in capsys.readouterr().err
  assert evaluate.main([*argv, "--lengths=1024M"]) == 2
  error = capsys.readouterr().err
  assert "1,073,741,824 tokens: the caches of 4 layers" in error
  assert "tokens fit; shorten the context" in error
