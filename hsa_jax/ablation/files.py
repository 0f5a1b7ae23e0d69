"""Grid files: Python files with `SIZES` and `get_grid(size)`."""

import importlib.util
import os
import pathlib
import sys
import types
from collections.abc import Callable
from typing import Any

import ml_collections

from hsa_jax.ablation.grid import Cell, Grid, GridError
from hsa_jax.ablation.resolve import resolve
from hsa_jax.config import ConfigError, to_config_dict


def load_grid(path: str | os.PathLike[str], size: str = "") -> Grid:
  """The grid of a file.

  Args:
    path: of the Python file.
    size: one of its `SIZES`; empty: the first.

  Raises:
    GridError: no such file or size, no grid in it, or whatever it raises.
  """
  module = _load(pathlib.Path(path))
  sizes = tuple(vars(module).get("SIZES", ()))
  make = vars(module).get("get_grid")
  if not sizes or make is None:
    raise GridError(
      [
        f"--config={path}: no grid; it needs SIZES = ('NAME', ...) and"
        " get_grid(size), as configs/ablation.py"
      ]
    )
  size = size or sizes[0]
  if size not in sizes:
    raise GridError([f"--size={size}: must be one of {', '.join(sizes)}"])
  try:
    grid = make(size)
  except (ConfigError, GridError) as error:
    raise GridError([f"{path}: {line}" for line in error.problems]) from error
  if not isinstance(grid, Grid):
    kind = type(grid).__name__
    raise GridError([f"{path}: get_grid({size!r}) returned {kind}, not a Grid"])
  return grid


def cell_config(
  get_grid: Callable[[str], Grid], name: str
) -> ml_collections.ConfigDict:
  """One cell of a grid as what `get_config()` of a config file returns.

  So every cell can be trained by itself: `--config=FILE:SIZE/CELL`.

  Args:
    get_grid: of the file.
    name: `SIZE/CELL`, or `SIZE` for the base.

  Raises:
    GridError: there is no such cell.
    ConfigError: the cell breaks a rule.
  """
  size, _, cell = name.partition("/")
  return to_config_dict(_find(get_grid(size), cell or "base"))


def _find(grid: Grid, name: str) -> Any:
  cells: dict[str, Cell] = {cell.name: cell for cell in grid.all_cells()}
  if name not in cells:
    known = ", ".join(cells)
    raise GridError([f"{name!r} is no cell of this grid; there are {known}"])
  return resolve(grid, cells[name]).cfg


def _load(path: pathlib.Path) -> types.ModuleType:
  spec = importlib.util.spec_from_file_location(f"grid_{path.stem}", path)
  if not path.is_file() or spec is None or spec.loader is None:
    raise GridError([f"--config={path}: there is no such Python file"])
  module = importlib.util.module_from_spec(spec)
  # As for a script, so that a grid finds the modules beside it.
  folder = str(path.resolve().parent)
  sys.path.append(folder)
  try:
    spec.loader.exec_module(module)
  except Exception as error:  # Whatever the user's Python file raises.
    kind = type(error).__name__
    raise GridError([f"--config={path}: {kind}: {error}"]) from error
  finally:
    sys.path.remove(folder)
  return module
