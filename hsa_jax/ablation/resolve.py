"""From a cell to a configuration, and from configurations to runs.

The rule of matching: where a cell says `matched`, `model.mlp_dim`, the width of
the MLP of every window and read block, is chosen so that the number of
parameters comes as near to the base's as it can; more than 1% away is an error.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hsa_jax.ablation.grid import Cell, Grid
from hsa_jax.config import (
  Config,
  ConfigError,
  config_hash,
  to_dict,
  validate,
  with_overrides,
)
from hsa_jax.models.parameters import count_parameters, match_parameters

MATCHED_FIELD = "model.mlp_dim"
SEED_FIELD = "train.seed"
BEGINNING_FIELD = "train.init_from"


class Resolved(NamedTuple):
  """A cell and its configuration.

  Attributes:
    cell: of the grid.
    cfg: with overrides and matching applied; the seed is the base's.
    parameters: of the model.
    after: the cell that it begins with; None: with new parameters.
  """

  cell: Cell
  cfg: Config
  parameters: int
  after: "Resolved | None" = None


class Run(NamedTuple):
  """One training run of a grid.

  Attributes:
    cell: what is trained.
    seed: of training.
    cfg: resolved, the seed included.
    hash: of `cfg` and of what it begins with: two cells with one hash are one
      run.
    after: the run whose parameters it begins with; None: with new ones.
  """

  cell: Cell
  seed: int
  cfg: Config
  hash: str
  after: "Run | None" = None

  @property
  def name(self) -> str:
    """`A1-none-s3`, for people."""
    return f"{self.cell.name}-s{self.seed}"


def resolve(
  grid: Grid, cell: Cell, extra: Mapping[str, Any] | None = None
) -> Resolved:
  """The configuration of a cell, validated.

  Args:
    grid: its grid.
    cell: one of the grid's.
    extra: overrides of the command line, applied last.

  Raises:
    ConfigError: naming the cell, with every broken rule.
  """
  where = f"cell {cell.name!r}"
  cfg = with_overrides(grid.base, cell.overrides, where)
  cfg = with_overrides(cfg, extra or {}, where)
  validate(cfg, where=where)
  if cell.matched:
    target = count_parameters(grid.base.model).total
    cfg = _matched(cfg, target, where)
  before = {one.name: one for one in grid.all_cells()}.get(cell.after)
  after = resolve(grid, before, extra) if before else None
  return Resolved(cell, cfg, count_parameters(cfg.model).total, after)


def resolve_all(
  grid: Grid, cells: Sequence[Cell], extra: Mapping[str, Any] | None = None
) -> tuple[list[Resolved], list[str]]:
  """All cells that resolve, and what is wrong with the others, line by line."""
  found, problems = [], []
  for cell in cells:
    try:
      found.append(resolve(grid, cell, extra))
    except ConfigError as error:
      problems += [f"{cell.name}: {line}" for line in error.problems]
  return found, problems


def make_runs(found: Sequence[Resolved], seeds: Sequence[int]) -> list[Run]:
  """Every cell with every seed; the first seed of all cells comes first."""
  return [_run_of(one, seed) for seed in seeds for one in found]


def _run_of(one: Resolved, seed: int) -> Run:
  cfg = with_overrides(one.cfg, {SEED_FIELD: seed})
  after = _run_of(one.after, seed) if one.after else None
  # Where the run lies that it begins with does not make it another one.
  begun = {BEGINNING_FIELD: after.hash} if after else {}
  return Run(
    one.cell, seed, cfg, config_hash(with_overrides(cfg, begun)), after
  )


def changed_fields(base: Config, cfg: Config) -> list[str]:
  """`model.hsa.top_k: 4 -> 16` for every field that differs.

  A schedule is one field; stages are told field by field unless their number
  changes.
  """
  old, new = _fields(to_dict(base)), _fields(to_dict(cfg))
  return [
    f"{path}: {old.get(path, 'none')} -> {new.get(path, 'none')}"
    for path in dict.fromkeys([*old, *new])
    if path not in old or path not in new or old[path] != new[path]
  ]


def _fields(value: Any, path: str = "") -> dict[str, Any]:
  """Values by path; tuples of plain values are values, patterns a text."""
  if path == "model.layers":
    return {path: ", ".join(map(_layer_text, value)) or "windows"}
  if isinstance(value, dict):
    items = [(f"{path}.{key}" if path else key, v) for key, v in value.items()]
  elif isinstance(value, tuple) and value and isinstance(value[0], dict):
    items = [(f"{path}[{i}]", v) for i, v in enumerate(value)]
  else:
    return {path: value}
  return {k: leaf for p, v in items for k, leaf in _fields(v, p).items()}


def _layer_text(layer: dict[str, Any]) -> str:
  return " ".join(str(value) for value in layer.values() if value is not None)


def _matched(cfg: Config, target: int, where: str) -> Config:
  try:
    model = match_parameters(cfg.model, target)
  except ValueError as error:
    raise ConfigError([f"matched: {error}"], where) from error
  return with_overrides(cfg, {MATCHED_FIELD: model.mlp_dim}, where)
