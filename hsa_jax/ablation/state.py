"""What has become of every run, read from its files alone.

A run is a folder `runs/CELL-sSEED-HASH` of the grid's workdir: the workdir of
`train.py`, with `eval/` inside it, the output of both commands, and
`sweep.jsonl`, a line per command that ended. The hash is that of the resolved
configuration, seed included, so a run is found whatever its cell is called.
"""

import contextlib
import enum
import fcntl
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from hsa_jax.ablation.grid import Cell, Measure
from hsa_jax.ablation.resolve import Run
from hsa_jax.evaluation.results import append_line, read_lines

RUNS = "runs"
EVENTS = "sweep.jsonl"
LOCK = ".sweep.lock"


class Status(enum.StrEnum):
  """Of one run."""

  WAITING = "waiting"  # nothing is there yet
  PARTLY = "partly"  # begun, and not finished
  TRAINED = "trained"  # not evaluated, or not everywhere
  DONE = "done"
  STORED = "stored"  # measured elsewhere; its lines are kept in a folder
  FAILED = "failed"  # its last command failed
  BUSY = "busy"  # a process works on it


class Progress(NamedTuple):
  """A run and how far it is.

  Attributes:
    run: which.
    folder: where.
    status: how far.
    missing: what was not measured yet.
    seconds: of all commands that ended well.
    failure: the last command's, if it failed.
  """

  run: Run
  folder: pathlib.Path
  status: Status
  missing: tuple[Measure, ...]
  seconds: float
  failure: str


def folder_of(workdir: str | os.PathLike[str], run: Run) -> pathlib.Path:
  """The folder of a run: the one that has its hash, or a new one."""
  runs = pathlib.Path(workdir) / RUNS
  found = sorted(runs.glob(f"*-{run.hash}"))
  return found[0] if found else runs / f"{run.name}-{run.hash}"


def eval_folder(folder: pathlib.Path, cell: Cell) -> pathlib.Path:
  """Where a cell's results are; cells of one run that differ in it have two."""
  return folder / (f"eval-{cell.name}" if cell.eval_flags else "eval")


def is_trained(folder: pathlib.Path, run: Run) -> bool:
  """Whether the checkpoint of the last step is complete."""
  # A checkpoint gets its name once it is complete.
  return (folder / "checkpoints" / str(run.cfg.num_steps)).is_dir()


def missing_measures(
  folder: pathlib.Path, measures: Sequence[Measure]
) -> tuple[Measure, ...]:
  """Measures that no finished call of `eval.py` in this folder has made."""
  made = [
    tuple(event["arguments"])
    for event in read_events(folder)
    if event["command"] == "eval" and event["code"] == 0
  ]
  return tuple(m for m in measures if m.arguments() not in made)


def progress_of(
  workdir: str | os.PathLike[str], run: Run, measures: Sequence[Measure]
) -> Progress:
  """How far a run is."""
  folder = folder_of(workdir, run)
  events = read_events(folder)
  missing = missing_measures(folder, measures)
  trained = is_trained(folder, run)
  last = events[-1] if events else {"code": 0}
  if is_locked(folder):
    status = Status.BUSY
  elif trained and not missing:
    status = Status.DONE
  elif last["code"]:
    status = Status.FAILED
  elif trained:
    status = Status.TRAINED
  else:
    status = Status.PARTLY if folder.exists() else Status.WAITING
  seconds = sum(event["seconds"] for event in events if not event["code"])
  failure = describe_failure(last) if status is Status.FAILED else ""
  return Progress(run, folder, status, missing, seconds, failure)


def read_events(folder: pathlib.Path) -> list[dict[str, Any]]:
  """Lines of the commands that ended, oldest first."""
  return read_lines(folder / EVENTS)


def add_event(
  folder: pathlib.Path,
  command: str,
  arguments: Sequence[str],
  code: int,
  seconds: float,
) -> dict[str, Any]:
  """Notes that a command ended, and how; returns the line."""
  event = {
    "command": command,
    "arguments": list(arguments),
    "code": code,
    "seconds": round(seconds, 1),
  }
  append_line(folder / EVENTS, event)
  return event


def describe_failure(event: dict[str, Any]) -> str:
  """`train.py ended with code 1`."""
  return f"{event['command']}.py ended with code {event['code']}"


def is_locked(folder: pathlib.Path) -> bool:
  """Whether a process works on the run."""
  if not (folder / LOCK).exists():
    return False
  with locked(folder) as lock:
    return lock is None


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[int | None]:
  """Holds the run for this process; yields the lock's file, or None.

  None means that another process holds it. Children that inherit the file hold
  the lock too: a command that outlives its sweep is not disturbed by the next.
  """
  folder.mkdir(parents=True, exist_ok=True)
  file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
  try:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      yield None
      return
    yield file
  finally:
    os.close(file)
