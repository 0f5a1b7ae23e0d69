"""Runs that begin with the parameters of another one."""

import dataclasses

import jax
import numpy as np
import pytest

from hsa_jax.parallel import make_mesh
from hsa_jax.training import loop
from hsa_jax.training.beginning import first_state
from hsa_jax.training.checkpoint import RunInfo
from hsa_jax.training.guard import run_optimizer
from hsa_jax.training.state import abstract_state
from hsa_jax.training.stored import CheckpointError

from .helpers import losses, make_config, make_inputs

pytestmark = pytest.mark.usefixtures("compile_once")
CFG = make_config()


def from_other(source, cfg=CFG, **model):
  train = dataclasses.replace(cfg.train, init_from=str(source), seed=5)
  shape = dataclasses.replace(cfg.model, **model)
  return dataclasses.replace(cfg, train=train, model=shape)


def train(cfg, root, name="second", **changes):
  inputs = make_inputs(cfg, root)._replace(**changes)
  return loop.train(cfg, workdir=root / name, inputs=inputs)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
  """A finished run, and its folder."""
  root = tmp_path_factory.mktemp("first")
  return root / "run", train(CFG, root, "run")


class Crash(Exception):
  pass


def crash(*args, **kwargs):
  raise Crash


def test_parameters_are_taken_and_the_rest_begins_anew(first, tmp_path):
  folder, end = first
  cfg = from_other(folder)
  mesh, tx = make_mesh(cfg.mesh), run_optimizer(cfg)
  inputs = make_inputs(cfg, tmp_path)
  abstract = abstract_state(inputs.build, tx, mesh=mesh)
  state = first_state(cfg, inputs, tx, abstract=abstract, mesh=mesh)
  assert int(state.step) == 0
  pairs = zip(
    jax.tree.leaves(state.model), jax.tree.leaves(end.model), strict=True
  )
  for got, want in pairs:
    np.testing.assert_array_equal(got, want)
  moments = [x for x in jax.tree.leaves(state.opt_state) if x.ndim]
  assert moments and not any(np.any(x) for x in moments)


def test_a_resumed_run_does_not_begin_again(first, tmp_path, monkeypatch):
  """After its own first checkpoint the source is not looked at."""
  cfg = from_other(first[0])
  whole = train(cfg, tmp_path, "whole")

  class Stop(loop.Hook):
    def wants(self, step, moment):
      if step == 6:
        raise Crash
      return False

  with pytest.raises(Crash):
    loop.train(
      cfg,
      workdir=tmp_path / "again",
      inputs=make_inputs(cfg, tmp_path),
      evaluators=[Stop()],
    )
  monkeypatch.setattr("hsa_jax.training.beginning.load_model", crash)
  again = train(cfg, tmp_path, "again")
  np.testing.assert_array_equal(
    again.model.output.kernel[...], whole.model.output.kernel[...]
  )
  assert losses(tmp_path / "again") == losses(tmp_path / "whole")


def test_another_model_is_refused_by_its_parameters(first, tmp_path):
  cfg = from_other(first[0], embed_dim=24)
  with pytest.raises(CheckpointError, match="parameters of another model") as e:
    train(cfg, tmp_path)
  assert "embedding.embedding" in str(e.value)
  assert "fix: give this run the model" in str(e.value)


def test_another_vocabulary_is_refused(tmp_path):
  root = tmp_path
  info = RunInfo(CFG, "hf:other.json", "ef" * 32)
  inputs = make_inputs(CFG, root)
  loop.train(CFG, workdir=root / "run", inputs=inputs._replace(info=info))
  with pytest.raises(CheckpointError, match="tokenizer hf:other.json"):
    train(from_other(root / "run"), root)


def test_a_folder_without_checkpoints_is_named(tmp_path):
  with pytest.raises(CheckpointError, match="no such folder"):
    train(from_other(tmp_path / "nothing"), tmp_path)
