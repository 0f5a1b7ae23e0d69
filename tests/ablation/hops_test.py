"""One retrieval or two: what tells the cells apart."""

import pathlib

import pytest

from hsa_jax.ablation import load_grid
from hsa_jax.ablation.check import check
from hsa_jax.ablation.resolve import changed_fields

FILE = pathlib.Path(__file__).parents[2] / "configs" / "hops.py"


@pytest.mark.parametrize("size", ["tiny", "smoke"])
def test_the_cells_differ_in_the_number_of_retrievals(size):
  grid = load_grid(FILE, size)
  (base, one), problems = check(grid, grid.all_cells(), {})
  assert not problems
  field = "model.hsa.groups_per_retrieval: 1 -> 2"
  widths = [
    line
    for line in changed_fields(base.cfg, one.cfg)
    if not line.startswith("model.mlp_dim")  # matched
  ]
  assert widths == [field]
