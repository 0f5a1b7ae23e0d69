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
             also on several machines with one file system, share the work;
             without one, --stored=DIR leaves out what the records.jsonl of an
             earlier report has
  --status   what has become of every run
  --report   table, differences to the base, pictures, from what is finished
  --emit     prints the commands for a cluster: shell, slurm or gke

A run is named by the hash of its resolved configuration, seed included. Fields
of all runs are set as for train.py, as in --config.data.store=DIR; those of the
model belong to the grid file. docs/ablation.md says how to write one.

Exit codes: 0 finished, 1 some run failed, 2 something to correct, 130 stopped.
"""

import pathlib
import sys
from collections.abc import Sequence

from hsa_jax.ablation import (
  Cell,
  GridError,
  Resolved,
  Run,
  make_runs,
)
from hsa_jax.ablation.check import check
from hsa_jax.ablation.emit import Target, emit
from hsa_jax.ablation.execute import Commands, Outcome, Sweep, Task
from hsa_jax.ablation.listing import (
  format_seconds,
  list_cells,
  list_progress,
)
from hsa_jax.ablation.records import Stored, is_stored, read_stored
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
from hsa_jax.cli.flags import read_member
from hsa_jax.cli.sweep_flags import Arguments, read_arguments
from hsa_jax.config import ConfigError
from hsa_jax.data.build import ensure_store
from hsa_jax.data.errors import DataError
from hsa_jax.evaluation.lengths import FlagError
from hsa_jax.evaluation.results import ResultsError, check_writable

INPUT_ERRORS = (FlagError, GridError, ConfigError, DataError, ResultsError)


class RunsFailed(Exception):
  """Some runs failed; the others are finished."""


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  argv = list(sys.argv[1:] if argv is None else argv)
  try:
    return exit_code(
      lambda: act(read_arguments(argv, about=str(__doc__))),
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
  runs = _not_stored(arguments, make_runs(_checked(arguments), arguments.seeds))
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


def _not_stored(arguments: Arguments, runs: Sequence[Run]) -> list[Run]:
  """Runs to work on: what `--stored` has is left out, unless one begins there.

  Raises:
    ResultsError: for a damaged file.
  """
  stored = _stored(arguments)
  left = [
    r for r in runs if not is_stored(stored, r, _measures(arguments, r.cell))
  ]
  begun = {r.after.hash for r in left if r.after}
  return [r for r in runs if r in left or r.hash in begun]


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
    stored_in=arguments.values.stored,
    doc=arguments.values.doc,
    name=pathlib.Path(arguments.values.config).stem,
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
  stored = _stored(arguments)
  progress = []
  for run in make_runs(found, arguments.seeds):
    measures = _measures(arguments, run.cell)
    one = progress_of(arguments.workdir, run, measures)
    if one.status is Status.WAITING and is_stored(stored, run, measures):
      one = one._replace(status=Status.STORED)
    progress.append(one)
  return progress


def _stored(arguments: Arguments) -> Stored:
  folder = arguments.values.stored
  return read_stored(folder) if folder else {}


def _say_before(arguments: Arguments, runs: Sequence[Run]) -> None:
  found = [p.status for p in _progress(arguments)]
  done, stored = found.count(Status.DONE), found.count(Status.STORED)
  jobs = f", {arguments.values.jobs} at a time" * (arguments.values.jobs > 1)
  elsewhere = f", {stored} measured elsewhere" * (stored > 0)
  print(
    f"{len(runs)} runs of {len(arguments.cells)} cells in {arguments.workdir}"
    f"{jobs}; {done} finished before{elsewhere}",
    flush=True,
  )


def _print(lines) -> None:
  for line in lines:
    print(line, flush=True)


if __name__ == "__main__":
  sys.exit(main())
