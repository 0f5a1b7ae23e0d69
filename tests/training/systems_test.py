"""Every system, killed and started again, goes on to the same bits.

Models are those of `configs/companions.py` at its smallest size. Whatever a
system carries from step to step (optimizer, selection noise, recurrent states)
is in the checkpoint, or is a function of the step.
"""

import dataclasses
import pathlib

import jax
import numpy as np
import pytest

from hsa_jax.ablation import load_grid
from hsa_jax.ablation.resolve import resolve_all
from hsa_jax.config import (
  Config,
  InitialState,
  InitialStateConfig,
  StageConfig,
)
from hsa_jax.models import LanguageModel
from hsa_jax.training import loop

from .helpers import losses, make_config, make_inputs

pytestmark = pytest.mark.usefixtures("compile_once")
FILE = pathlib.Path(__file__).parents[2] / "configs" / "companions.py"
SYSTEMS = (
  *("base", "full-rope", "full-nope", "rnope", "stick", "window"),
  *("mamba2", "gla", "ramba", "drt"),
)
PASSED = InitialStateConfig(mode=InitialState.STATE_PASSING, segments=2)


def config_of(name: str) -> Config:
  """A few steps of a system; recurrent ones pass their states on."""
  grid = load_grid(FILE, "smoke")
  found, _ = resolve_all(grid, [c for c in grid.all_cells() if c.name == name])
  cfg = make_config(checkpoint_every=2, eval_every=10)
  stage = StageConfig(num_steps=4, seq_len=64, batch_size=2)
  recurrent = name in ("mamba2", "gla", "ramba")
  return dataclasses.replace(
    cfg,
    model=found[0].cfg.model,
    data=dataclasses.replace(cfg.data, stages=(stage,)),
    train=dataclasses.replace(
      cfg.train, initial_state=PASSED if recurrent else InitialStateConfig()
    ),
  )


def test_all_systems_are_here():
  names = {cell.name for cell in load_grid(FILE, "smoke").all_cells()}
  assert names == {*SYSTEMS, "full-yarn"}, "yarn is trained as rope"


class Crash(Exception):
  pass


class CrashAt(loop.Hook):
  """Ends the run without a word once a step is due."""

  def wants(self, step, moment):
    if step == 3:
      raise Crash
    return False


@pytest.mark.slow
@pytest.mark.parametrize("name", SYSTEMS)
def test_a_system_resumes_to_the_same_bits(name, tmp_path):
  cfg = config_of(name)

  def train(folder, evaluators=()):
    inputs = make_inputs(cfg, tmp_path)._replace(
      build=lambda rngs: LanguageModel(cfg.model, rngs=rngs)
    )
    return loop.train(
      cfg, workdir=tmp_path / folder, inputs=inputs, evaluators=evaluators
    )

  whole = train("whole")
  with pytest.raises(Crash):
    train("again", [CrashAt()])
  assert max(losses(tmp_path / "again")) < 4
  again = train("again")
  assert losses(tmp_path / "again") == losses(tmp_path / "whole")
  assert sorted(losses(tmp_path / "whole")) == [1, 2, 3, 4]
  for got, want in zip(
    jax.tree.leaves(again), jax.tree.leaves(whole), strict=True
  ):
    np.testing.assert_array_equal(got, want)
