"""The optimizer in host memory: the same numbers, another place."""

import contextlib
import dataclasses

import jax
import numpy as np
import pytest

from hsa_jax.config import Guard, OptimizerName
from hsa_jax.parallel import make_mesh
from hsa_jax.training.checkpoint import Checkpointer
from hsa_jax.training.guard import run_optimizer
from hsa_jax.training.loop import train
from hsa_jax.training.restore import restore_newest
from hsa_jax.training.state import abstract_state

from .helpers import losses, make_config, make_inputs


def run(folder, workdir, **fields):
  cfg = make_config(str(folder / "store"), diagnose_every=0, **fields)
  return cfg, train(cfg, workdir=workdir, inputs=make_inputs(cfg, folder))


def kinds(tree) -> set[str]:
  arrays = [x for x in jax.tree.leaves(tree) if x.ndim]
  return {x.sharding.memory_kind for x in arrays}


def assert_same_state(ours, theirs):
  pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
  for a, b in pairs:
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=1e-6)


@pytest.mark.parametrize("on_nonfinite", [Guard.STOP, Guard.SKIP])
def test_same_run_from_the_host(tmp_path, on_nonfinite):
  """Also behind the guard, whose counters stay on the device."""
  _, near = run(tmp_path, tmp_path / "near", on_nonfinite=on_nonfinite)
  _, far = run(
    tmp_path,
    tmp_path / "far",
    on_nonfinite=on_nonfinite,
    offload_optimizer=True,
  )
  assert kinds(far.opt_state) == {"pinned_host"}
  assert kinds(far.model) == kinds(near.model) == kinds(near.opt_state)
  assert kinds(far.model) != {"pinned_host"}
  assert_same_state(far, near)


def test_muon_too(tmp_path):
  cfg = make_config(str(tmp_path / "store"), offload_optimizer=True)
  optimizer = dataclasses.replace(cfg.optimizer, name=OptimizerName.MUON)
  cfg = dataclasses.replace(cfg, optimizer=optimizer)
  inputs = make_inputs(cfg, tmp_path)
  state = train(cfg, workdir=tmp_path / "run", inputs=inputs)
  assert kinds(state.opt_state) == {"pinned_host"}
  values = losses(tmp_path / "run")
  assert len(values) == 12 and all(np.isfinite(list(values.values())))


@pytest.mark.parametrize("first", [True, False])
def test_checkpoints_move_between_the_places(tmp_path, first):
  """Saved from the host, restored on the device, and the other way round."""
  cfg, last = run(tmp_path, tmp_path / "run", offload_optimizer=first)
  train_fields = dataclasses.replace(cfg.train, offload_optimizer=not first)
  other = dataclasses.replace(cfg, train=train_fields)
  inputs = make_inputs(cfg, tmp_path)
  mesh = make_mesh(cfg.mesh)
  abstract = abstract_state(
    inputs.build,
    run_optimizer(other),
    mesh=mesh,
    host_optimizer=other.train.offload_optimizer,
  )
  with contextlib.closing(Checkpointer(tmp_path / "run", inputs.info)) as saver:
    state = restore_newest(saver, abstract, lambda line: None)
  assert state is not None
  assert (kinds(state.opt_state) == {"pinned_host"}) is not first
  assert_same_state(state, last)
