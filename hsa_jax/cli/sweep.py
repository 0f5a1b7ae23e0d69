"""Runs a grid of ablations: one file, one command, a table with intervals.

    python -m hsa_jax.cli.sweep --config=configs/ablation.py --list
    python -m hsa_jax.cli.sweep --config=configs/ablation.py --check
    python -m hsa_jax.cli.sweep --config=configs/ablation.py --size=tiny
      --subset=principles --seeds=5 --run --jobs=2
    python -m hsa_jax.cli.sweep --config=configs/ablation.py --report

  --list     cells, their parameters, operations, differences; needs no device
  --check    validates every cell before any of them starts
  --run      trains and evaluates what is not finished. Every run is a process
             of train.py, then of eval.py; one that fails does not stop the
             others. Kill it whenever you like: the same command goes on, and
             nothing that is finished is repeated. Several of these commands,
             also on several machines with one file system, share the work
  --status   what has become of every run
  --report   table, differences to the base, pictures, from what is finished
  --emit     prints the commands for a cluster: shell, slurm or gke

A run is named by the hash of its resolved configuration, seed included. Fields
of all runs are set as for train.py, as in --config.data.store=DIR; those of the
model belong to the grid file. docs/ablation.md says how to write one.

Exit codes: 0 finished, 1 some run failed, 2 something to correct, 130 stopped.
"""

import argparse
import ast
import dataclasses
import re
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from hsa_jax.ablation import (
  Cell,
  Grid,
  GridError,
  Resolved,
  Run,
  load_grid,
  make_runs,
  select,
)
from hsa_jax.ablation.check import check
from hsa_jax.ablation.emit import Target, emit
from hsa_jax.ablation.execute import Commands, Outcome, Sweep, Task
from hsa_jax.ablation.listing import (
  format_seconds,
  list_cells,
  list_progress,
)
from hsa_jax.ablation.report import write_report
from hsa_jax.ablation.resolve import resolve_all
from hsa_jax.ablation.state import (
  Progress,
  Status,
  folder_of,
  is_trained,
  progress_of,
)
from hsa_jax.cli.faults import exit_code
from hsa_jax.cli.flags import Parser, read_member
from hsa_jax.config import ConfigError
from hsa_jax.data.build import ensure_store
from hsa_jax.data.errors import DataError
from hsa_jax.evaluation.lengths import FlagError
from hsa_jax.evaluation.results import ResultsError, check_writable

INPUT_ERRORS = (FlagError, GridError, ConfigError, DataError, ResultsError)
_OVERRIDE = re.compile(r"--config\.([^=]+)=(.*)", re.DOTALL)
ACTIONS = ("list", "check", "run", "status", "report")


class RunsFailed(Exception):
  """Some runs failed; the others are finished."""


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


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  argv = list(sys.argv[1:] if argv is None else argv)
  try:
    return exit_code(
      lambda: act(read_arguments(argv)),
      input_errors=INPUT_ERRORS,
      stopped="stopped; finished runs are kept: run the same command to go on",
    )
  except RunsFailed as error:
    print(f"error: {error}", file=sys.stderr)
    return 1


def act(arguments: Arguments) -> None:
  """Does what was asked for, in the order of the actions.

  Raises:
    GridError: cells that break a rule.
    RunsFailed: after everything else.
  """
  values = arguments.values
  if values.list:
    found, problems = resolve_all(
      arguments.grid, arguments.cells, arguments.extra
    )
    _print(list_cells(arguments.grid, found))
    _refuse(problems)
  if values.check:
    found = _checked(arguments)
    print(f"{len(found)} cells of size {arguments.grid.size!r} are valid")
  failed = run(arguments) if values.run else []
  if values.status and not values.run:
    _print(list_progress(_progress(arguments)))
  if values.emit:
    emit_script(arguments)
  if values.report:
    report(arguments)
  if failed:
    lines = [f"{o.task.run.name}: {o.failure}" for o in failed]
    raise RunsFailed("\n  ".join([f"{len(failed)} runs failed", *lines]))


def run(arguments: Arguments) -> list[Outcome]:
  """Trains and evaluates everything that is missing; returns what failed.

  Raises:
    GridError, DataError: before anything starts.
  """
  runs = make_runs(_checked(arguments), arguments.seeds)
  _prepare(arguments, runs)
  _say_before(arguments, runs)
  teller = Teller(len(runs), arguments.values.jobs)
  sweep = Sweep(
    _commands(arguments),
    arguments.workdir,
    jobs=arguments.values.jobs,
    report=teller,
  )
  outcomes = sweep.run([Task(r, _measures(arguments, r.cell)) for r in runs])
  _print(list_progress(_progress(arguments)))
  return [o for o in outcomes if o.status is Status.FAILED]


def _prepare(arguments: Arguments, runs: Sequence[Run]) -> None:
  """The token stores of what is not trained yet are there, or are made once."""
  data = [
    r.cfg.data
    for r in runs
    if not is_trained(folder_of(arguments.workdir, r), r)
  ]
  stores = {(d.corpus, d.store, d.tokenizer): d for d in data}
  for cfg in stores.values():
    ensure_store(cfg)


def emit_script(arguments: Arguments) -> None:
  """Prints the commands of all runs for a cluster.

  Raises:
    FlagError, GridError: an unknown cluster, cells that break a rule.
  """
  target = read_member("--emit", arguments.values.emit, tuple(Target))
  runs = make_runs(_checked(arguments), arguments.seeds)
  _print(emit(target, _commands(arguments), runs, arguments.workdir))


def report(arguments: Arguments) -> None:
  """Makes and prints the report of what is finished.

  Raises:
    GridError: if nothing is, or the folder cannot be written.
  """
  found, _ = resolve_all(arguments.grid, arguments.cells, arguments.extra)
  out = arguments.values.out or f"{arguments.workdir}/report"
  check_writable(out, flag="--out")
  runs = make_runs(found, arguments.seeds)
  path = write_report(
    arguments.grid,
    found,
    runs,
    arguments.workdir,
    out,
    subset=arguments.values.subset,
    doc=arguments.values.doc,
  )
  print(path.read_text(encoding="utf-8"))
  print(f"report: {path}")


class Teller:
  """Says what has finished, and when the rest will have."""

  def __init__(self, total: int, jobs: int):
    self._total, self._jobs = total, jobs
    self._ended, self._spent = 0, []

  def __call__(self, outcome: Outcome) -> None:
    self._ended += 1
    if outcome.seconds:
      self._spent.append(outcome.seconds)
    name = f"[{self._ended}/{self._total}] {outcome.task.run.name}"
    took = f" in {format_seconds(outcome.seconds)}" if outcome.seconds else ""
    why = f": {outcome.failure}" if outcome.failure else ""
    print(f"{name}: {outcome.status}{took}{self._eta()}{why}", flush=True)

  def _eta(self) -> str:
    left = self._total - self._ended
    if not left or not self._spent:
      return ""
    each = sum(self._spent) / len(self._spent)
    return f"; ETA {format_seconds(each * left / self._jobs)}"


def read_arguments(argv: Sequence[str]) -> Arguments:
  """Parses the flags and loads the grid.

  Raises:
    FlagError, GridError: one message each.
  """
  values, rest = _parser().parse_known_args(argv)
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
    grid = dataclasses.replace(grid, finalists=_names(values.finalists))
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


def _checked(arguments: Arguments) -> list[Resolved]:
  found, problems = check(arguments.grid, arguments.cells, arguments.extra)
  _refuse(problems)
  return found


def _refuse(problems: Sequence[str]) -> None:
  if problems:
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    text = "\n  ".join([f"{count} in the grid; nothing was started", *problems])
    raise GridError([text])


def _commands(arguments: Arguments) -> Commands:
  config, size = arguments.values.config, arguments.grid.size
  return Commands(config, size, arguments.overrides)


def _measures(arguments: Arguments, cell: Cell) -> tuple:
  return arguments.grid.measures_of(cell)


def _progress(arguments: Arguments) -> list[Progress]:
  found, _ = resolve_all(arguments.grid, arguments.cells, arguments.extra)
  return [
    progress_of(arguments.workdir, r, _measures(arguments, r.cell))
    for r in make_runs(found, arguments.seeds)
  ]


def _say_before(arguments: Arguments, runs: Sequence[Run]) -> None:
  done = sum(p.status is Status.DONE for p in _progress(arguments))
  jobs = f", {arguments.values.jobs} at a time" * (arguments.values.jobs > 1)
  print(
    f"{len(runs)} runs of {len(arguments.cells)} cells in {arguments.workdir}"
    f"{jobs}; {done} finished before",
    flush=True,
  )


def _print(lines) -> None:
  for line in lines:
    print(line, flush=True)


def _parser() -> Parser:
  parser = Parser(
    prog="python -m hsa_jax.cli.sweep",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument_group("what").add_argument
  add("--config", default="", help="the grid file")
  add("--size", default="", help="one of its SIZES; default: the first")
  add("--subset", default="", help="a named part of the grid; default: all")
  add("--cells", default="", help="names or groups, as A3-standard,A5")
  add("--only", default="", help="these cells, without the base")
  add("--finalists", default="", help="cells of which more is measured")
  add("--seeds", default="1", help="how many, as 5; or which, as 100,101")
  add("--workdir", default="", help="default: runs/ablation/SIZE")
  add("--out", default="", help="of the report; default: WORKDIR/report")
  add("--doc", default="", help="Markdown file that gets the tables, too")
  add("--jobs", type=int, default=1, help="runs at a time")
  do = parser.add_argument_group("to do").add_argument
  for name in ACTIONS:
    do(f"--{name}", action="store_true")
  targets = ", ".join(Target)
  do("--emit", default="", metavar="WHERE", help=f"one of {targets}")
  return parser


if __name__ == "__main__":
  sys.exit(main())
