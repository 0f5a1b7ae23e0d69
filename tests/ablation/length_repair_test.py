"""The repairs of a recurrent model: what tells them apart, and nothing else."""

import pathlib

import pytest

from hsa_jax.ablation import load_grid, make_runs
from hsa_jax.ablation.check import check
from hsa_jax.ablation.resolve import changed_fields
from hsa_jax.config import InitialState

FILE = pathlib.Path(__file__).parents[2] / "configs" / "length_repair.py"


@pytest.mark.parametrize("size", ["tiny", "smoke"])
def test_repairs_differ_in_the_first_state_of_a_row(size):
  grid = load_grid(FILE, size)
  found, problems = check(grid, grid.all_cells(), {})
  assert not problems
  base, control, *others = found
  assert {one.parameters for one in found} == {base.parameters}
  assert all(one.after == base for one in (control, *others))
  for one in others:
    mode = one.cfg.train.initial_state.mode
    changed = [f"train.initial_state.mode: zero -> {mode}"]
    if mode is InitialState.TBTT:
      changed.insert(0, "data.stages[0].stream_steps: 1 -> 64")
    assert sorted(changed_fields(control.cfg, one.cfg)) == changed
  modes = {one.cfg.train.initial_state.mode for one in (control, *others)}
  assert modes == set(InitialState)


def test_every_seed_is_repaired_from_its_own_base():
  grid = load_grid(FILE, "tiny")
  found, _ = check(grid, grid.all_cells(), {})
  runs = make_runs(found, [0, 1])
  assert len({run.hash for run in runs}) == 12
  bases = {run.seed: run.hash for run in runs if run.after is None}
  assert all(
    run.after.hash == bases[run.seed] for run in runs if run.after is not None
  )
