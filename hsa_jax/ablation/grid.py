"""A grid of ablations as data: one base, and cells that differ from it.

A grid file defines `SIZES` and `get_grid(size)`. Nothing here reads a file or
touches a device.
"""

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any

from hsa_jax.config import Config

BASE = "base"


class GridError(ValueError):
  """Something to correct in a grid, or in what was asked of it.

  Attributes:
    problems: one line each.
  """

  def __init__(self, problems: Sequence[str]):
    self.problems = list(problems)
    super().__init__("\n".join(self.problems))


@dataclasses.dataclass(frozen=True)
class Cell:
  """One model of a grid: the base with some fields replaced.

  Attributes:
    name: identifies it; what stands before the first hyphen is its group, so
      `A1` selects `A1-none` and `A1-two`.
    axis: what is varied.
    claim: what the comparison with the base tests, in a sentence.
    overrides: values by path of field, as in `config.with_overrides`.
    matched: whether the width of the MLPs is chosen so that the parameters
      agree with those of the base within 1%; see `resolve`.
    eval_flags: further flags of `eval.py` for this cell. Cells that are trained
      alike and measured differently are one run with two evaluations.
    after: name of the cell whose finished parameters it begins with, seed by
      seed; "" begins with new ones. So a grid can ask what some further steps
      change. That cell comes before this one, and runs whenever this one does.
  """

  name: str
  axis: str
  claim: str
  overrides: Mapping[str, Any] = field(default_factory=dict)
  matched: bool = False
  eval_flags: tuple[str, ...] = ()
  after: str = ""


@dataclasses.dataclass(frozen=True)
class Undefined:
  """A combination that has no meaning, and why; it is listed, never run.

  Attributes:
    name: of the combination.
    axis: where it would belong.
    reason: why there is no such model.
    overrides: the fields that would make it; the rules refuse them.
  """

  name: str
  axis: str
  reason: str
  overrides: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Measure:
  """What one call of `eval.py` measures of the trained cells.

  Attributes:
    lengths: as `--lengths`.
    samples: as `--samples`.
    suites: as `--suites`.
    tasks: as `--tasks`.
    extra: further flags of `eval.py`, as `--haystack=noise`.
    cells: names of cells or groups that are measured so; none names all. What
      costs much is asked of few: a million tokens of the finalists.
  """

  lengths: str
  samples: str
  suites: str = "hsa_ruler,ppl"
  tasks: str = "s_niah,mk_mq,vt,by_length"
  extra: tuple[str, ...] = ()
  cells: tuple[str, ...] = ()

  def arguments(self) -> tuple[str, ...]:
    """The flags of `eval.py`, without checkpoint and workdir."""
    return (
      f"--suites={self.suites}",
      f"--tasks={self.tasks}",
      f"--lengths={self.lengths}",
      f"--samples={self.samples}",
      *self.extra,
    )


@dataclasses.dataclass(frozen=True)
class Grid:
  """A base, its cells, and how all of them are measured.

  Attributes:
    size: name of the size.
    base: every cell starts from it; it is a cell itself, called `base`.
    cells: all others.
    measures: of the cells.
    subsets: names of cells or groups by name of the subset.
    undefined: combinations without meaning.
    claim: what the base is.
  """

  size: str
  base: Config
  cells: tuple[Cell, ...]
  measures: tuple[Measure, ...]
  subsets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
  undefined: tuple[Undefined, ...] = ()
  claim: str = "what every other cell is compared with"

  def __post_init__(self):
    names = [cell.name for cell in self.cells]
    twice = sorted({n for n in names if names.count(n) > 1 or n == BASE})
    problems = [f"cell {name!r}: defined twice" for name in twice]
    known = [BASE, *names]
    for i, cell in enumerate(self.cells, 1):
      if cell.after and cell.after not in known[:i]:
        problems.append(
          f"cell {cell.name!r}: after = {cell.after!r} names no cell before"
          f" it{_nearest(cell.after, known[:i])}"
        )
    lists = {f"subset {name!r}": m for name, m in self.subsets.items()}
    for measure in self.measures:
      lists[f"measure of {measure.lengths}"] = measure.cells
    for where, members in lists.items():
      problems += [
        f"{where}: {m!r} names no cell{_nearest(m, known)}"
        for m in members
        if not any(belongs(name, m) for name in known)
      ]
    if problems:
      raise GridError(problems)

  def all_cells(self) -> tuple[Cell, ...]:
    """The base and the cells, in order."""
    return (Cell(BASE, BASE, self.claim), *self.cells)

  def measures_of(self, cell: Cell) -> tuple[Measure, ...]:
    """What is measured of a cell, its own flags included."""
    return tuple(
      dataclasses.replace(one, extra=(*one.extra, *cell.eval_flags))
      for one in self.measures
      if not one.cells or any(belongs(cell.name, m) for m in one.cells)
    )

  def with_finalists(self, names: Sequence[str]) -> "Grid":
    """The grid with these cells measured in every way that only some are."""
    measures = tuple(
      dataclasses.replace(one, cells=(*one.cells, *names)) if one.cells else one
      for one in self.measures
    )
    return dataclasses.replace(self, measures=measures)


def belongs(name: str, member: str) -> bool:
  """Whether a cell is meant by its own name or by that of its group."""
  return name == member or name.startswith(member + "-")


def select(
  grid: Grid, *, subset: str = "", cells: Sequence[str] = ()
) -> tuple[Cell, ...]:
  """The cells asked for, in the order of the grid; all if nothing is.

  The base is always among them: without it there is nothing to compare with;
  so are the cells that others begin with.

  Args:
    grid: the grid.
    subset: name of a subset.
    cells: names of cells or groups; with a subset, in addition to it.

  Raises:
    GridError: names that are not known, with the nearest that is.
  """
  if subset and subset not in grid.subsets:
    known = list(grid.subsets)
    raise GridError(
      [
        f"--subset={subset}: must be one of {', '.join(known)}"
        f"{_nearest(subset, known)}"
      ]
    )
  everything = grid.all_cells()
  names = [cell.name for cell in everything]
  problems = [
    f"--cells: {member!r} names no cell{_nearest(member, names)}"
    for member in cells
    if not any(belongs(name, member) for name in names)
  ]
  if problems:
    raise GridError(problems)
  members = [*grid.subsets.get(subset, ()), *cells]
  if not members:
    return everything
  wanted = {BASE}
  for cell in reversed(everything):  # those it begins with come before it
    if cell.name in wanted or any(belongs(cell.name, m) for m in members):
      wanted |= {cell.name, cell.after}
  return tuple(cell for cell in everything if cell.name in wanted)


def _nearest(name: str, known: Sequence[str]) -> str:
  close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
  return f"; did you mean {close[0]!r}?" if close else ""
