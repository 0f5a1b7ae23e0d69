"""Grids of ablations: one file, many runs, a table with intervals."""

from hsa_jax.ablation.files import cell_config, load_grid
from hsa_jax.ablation.grid import (
  BASE,
  Cell,
  Grid,
  GridError,
  Measure,
  Undefined,
  select,
)
from hsa_jax.ablation.resolve import Resolved, Run, make_runs, resolve

__all__ = [
  "BASE",
  "Cell",
  "Grid",
  "GridError",
  "Measure",
  "Resolved",
  "Run",
  "Undefined",
  "cell_config",
  "load_grid",
  "make_runs",
  "resolve",
  "select",
]
