"""Boards and the trace: what a run shows beside its own record."""

import importlib.util
import sys
import types

import pytest

from hsa_jax.config import ConfigError
from hsa_jax.training import loop
from hsa_jax.training.boards import TensorBoard, check_boards, open_boards
from hsa_jax.training.hooks import Moment
from hsa_jax.training.metrics import MetricsWriter, read_metrics
from hsa_jax.training.profiling import Profile

from .helpers import make_config, make_inputs


class Run:
  def __init__(self):
    self.logged, self.finished = [], False

  def log(self, values, *, step):
    self.logged.append((step, values))

  def finish(self):
    self.finished = True


@pytest.fixture
def wandb(monkeypatch):
  """A stand-in with the three calls that are made."""
  module = types.ModuleType("wandb")
  module.__spec__ = types.SimpleNamespace(name="wandb", origin="wandb.py")
  module.runs, module.asked = [], []

  def init(**arguments):
    module.asked.append(arguments)
    module.runs.append(Run())
    return module.runs[-1]

  module.init = init
  monkeypatch.setitem(sys.modules, "wandb", module)
  return module


def test_every_record_goes_to_wandb_too(wandb, tmp_path):
  cfg = make_config(wandb_project="needles")
  check_boards(cfg)
  boards = open_boards(cfg, tmp_path / "run7", start_step=0)
  writer = MetricsWriter(tmp_path, start_step=0, boards=boards)
  writer.write(3, {"train/loss_nats": 1.5})
  writer.close()
  (run,) = wandb.runs
  assert run.logged == [(3, {"train/loss_nats": 1.5})] and run.finished
  assert [r["step"] for r in read_metrics(tmp_path)] == [3]
  asked = wandb.asked[0]
  assert asked["project"] == "needles" and asked["name"] == "run7"
  assert asked["config"]["train"]["checkpoint_every"] == 4


def test_a_resumed_run_is_the_same_one_and_another_is_not(wandb, tmp_path):
  cfg = make_config(wandb_project="needles")
  for name in ("a", "a", "b"):
    for board in open_boards(cfg, tmp_path / name, start_step=0):
      board.close()
  ids = [asked["id"] for asked in wandb.asked]
  assert ids[0] == ids[1] != ids[2]
  assert all(asked["resume"] == "allow" for asked in wandb.asked)


@pytest.mark.parametrize("spec", [None, types.SimpleNamespace(origin=None)])
def test_without_the_package_one_message_before_anything(
  monkeypatch, tmp_path, spec
):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
  cfg = make_config(wandb_project="needles")
  with pytest.raises(ConfigError) as error:
    loop.train(cfg, workdir=tmp_path / "run")
  text = str(error.value)
  assert "train.wandb_project = 'needles'" in text
  assert "pip install 'hsa_jax[wandb]'" in text
  assert not (tmp_path / "run").exists()


def test_by_default_there_is_tensorboard_alone(tmp_path):
  cfg = make_config()
  check_boards(cfg)
  boards = open_boards(cfg, tmp_path, start_step=0)
  assert [type(board) for board in boards] == [TensorBoard]
  boards[0].close()


def test_the_trace_covers_the_steps_asked_for(tmp_path):
  hook = Profile(tmp_path, (4, 6))
  assert [s for s in range(1, 9) if hook.wants(s, Moment.STEP)] == [3]
  hook._tracing = True
  assert [s for s in range(4, 9) if hook.wants(s, Moment.STEP)] == [5]
  assert not Profile(tmp_path, ()).wants(3, Moment.STEP)


@pytest.mark.usefixtures("compile_once")
def test_a_run_writes_its_trace_into_the_workdir(tmp_path, capsys):
  cfg = make_config(profile_steps=(3, 5))
  run = tmp_path / "run"
  loop.train(cfg, workdir=run, inputs=make_inputs(cfg, tmp_path))
  assert list((run / "profile").rglob("*.xplane.pb"))
  assert f"written to {run / 'profile'}" in capsys.readouterr().err
