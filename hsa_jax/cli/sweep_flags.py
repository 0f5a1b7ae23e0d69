"""Flags of `python -m hsa_jax.cli.sweep`, and the grid that they name."""

import argparse
import ast
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from hsa_jax.ablation import Cell, Grid, load_grid, select
from hsa_jax.ablation.emit import Target
from hsa_jax.cli.flags import Parser
from hsa_jax.evaluation.lengths import FlagError

ACTIONS = ("list", "check", "run", "status", "report")
_OVERRIDE = re.compile(r"--config\.([^=]+)=(.*)", re.DOTALL)


class Arguments(NamedTuple):
  """The command line.

  Attributes:
    values: the flags.
    grid: of the file and size.
    cells: those asked for.
    seeds: of training.
    extra: overrides by path.
    overrides: the same as flags of `train.py`.
  """

  values: argparse.Namespace
  grid: Grid
  cells: tuple[Cell, ...]
  seeds: tuple[int, ...]
  extra: dict[str, Any]
  overrides: tuple[str, ...]

  @property
  def workdir(self) -> str:
    """Of the grid."""
    return self.values.workdir or f"runs/ablation/{self.grid.size}"


def read_arguments(argv: Sequence[str], *, about: str = "") -> Arguments:
  """Parses the flags and loads the grid.

  Args:
    argv: the command line.
    about: what `--help` says before the flags.

  Raises:
    FlagError, GridError: one message each.
  """
  values, rest = _parser(about).parse_known_args(argv)
  extra, problems = {}, []
  for argument in rest:
    match = _OVERRIDE.fullmatch(argument)
    if match is None:
      problems.append(f"{argument!r} is not a flag of this command; see --help")
    else:
      extra[match[1]] = _value(match[2])
  if not any(vars(values)[name] for name in (*ACTIONS, "emit")):
    names = ", ".join(f"--{name}" for name in (*ACTIONS, "emit=WHERE"))
    problems.append(f"say what to do: {names}")
  if not values.config:
    problems.append("--config=FILE is missing, as --config=configs/ablation.py")
  if values.jobs < 1:
    problems.append(f"--jobs={values.jobs}: must be at least 1")
  seeds: tuple[int, ...] = ()
  try:
    seeds = read_seeds(values.seeds)
  except FlagError as error:
    problems += error.problems
  if problems:
    raise FlagError(problems)
  grid = load_grid(values.config, values.size)
  if values.finalists:
    grid = grid.with_finalists(_names(values.finalists))
  if values.only:
    cells = select(grid, cells=_names(values.only))
    cells = tuple(c for c in cells if c.name in _names(values.only))
  else:
    names = _names(values.cells)
    cells = select(grid, subset=values.subset, cells=names)
  return Arguments(values, grid, cells, seeds, extra, tuple(rest))


def read_seeds(text: str) -> tuple[int, ...]:
  """`"5"` -> 0..4; `"100,101"` and `"7,"` -> these very seeds.

  Raises:
    FlagError: for anything else.
  """
  parts = [part.strip() for part in text.split(",") if part.strip()]
  if not parts or not all(part.isdecimal() for part in parts):
    raise FlagError(
      [f"--seeds={text}: write how many, as 5, or which, as 100,101 or 7,"]
    )
  numbers = tuple(map(int, parts))
  if "," in text:
    return tuple(dict.fromkeys(numbers))
  if numbers[0] < 1:
    raise FlagError([f"--seeds={text}: needs at least one seed"])
  return tuple(range(numbers[0]))


def _names(text: str) -> tuple[str, ...]:
  return tuple(name.strip() for name in text.split(",") if name.strip())


def _value(text: str) -> Any:
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError):
    return {"true": True, "false": False}.get(text, text)


def _parser(about: str) -> Parser:
  parser = Parser(
    prog="python -m hsa_jax.cli.sweep",
    description=about,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument_group("what").add_argument
  add("--config", default="", help="the grid file")
  add("--size", default="", help="one of its SIZES; default: the first")
  add("--subset", default="", help="a named part of the grid; default: all")
  add("--cells", default="", help="names or groups, as A3-standard,A5")
  add("--only", default="", help="these cells, without the base")
  add("--finalists", default="", help="more cells of which all is measured")
  add("--seeds", default="1", help="how many, as 5; or which, as 100,101")
  add("--workdir", default="", help="default: runs/ablation/SIZE")
  add("--out", default="", help="of the report; default: WORKDIR/report")
  add(
    "--stored",
    default="",
    metavar="DIR",
    help="runs in its records.jsonl are finished; default of --report: --out",
  )
  add(
    "--doc",
    default="",
    metavar="FILE",
    help="Markdown that gets the tables, too: between <!-- GRID SIZE --> (name"
    " of the grid's file, its size) and <!-- end -->",
  )
  add("--jobs", type=int, default=1, help="runs at a time")
  do = parser.add_argument_group("to do").add_argument
  for name in ACTIONS:
    do(f"--{name}", action="store_true")
  targets = ", ".join(Target)
  do("--emit", default="", metavar="WHERE", help=f"one of {targets}")
  return parser
