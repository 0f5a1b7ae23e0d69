"""Runs of a grid as processes of `train.py` and `eval.py`.

Nothing is computed here. A run that fails is noted, the others go on; what is
finished is not done again; what was interrupted goes on where `train.py` and
`eval.py` take it up.
"""

import concurrent.futures
import contextlib
import os
import pathlib
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from hsa_jax.ablation import pinned
from hsa_jax.ablation.grid import Measure
from hsa_jax.ablation.pinned import pin
from hsa_jax.ablation.resolve import BEGINNING_FIELD, SEED_FIELD, Run
from hsa_jax.ablation.state import (
  Status,
  add_event,
  describe_failure,
  eval_folder,
  folder_of,
  is_locked,
  is_trained,
  locked,
  missing_measures,
)
from hsa_jax.config import with_overrides

PINNED = pathlib.Path(pinned.__file__)
ROOT = pathlib.Path(__file__).resolve().parents[2]
POLL_S = 1.0  # between two looks at a run that another process holds


class Task(NamedTuple):
  """A run, and what is to be measured of it."""

  run: Run
  measures: tuple[Measure, ...]


class Outcome(NamedTuple):
  """What became of a task.

  Attributes:
    task: which.
    status: done, failed, or busy if it was stopped before its turn.
    seconds: of the commands that ran now; 0 if it was finished before.
    failure: what failed; "" if nothing did.
  """

  task: Task
  status: Status
  seconds: float
  failure: str = ""


class Commands(NamedTuple):
  """The commands of one grid.

  Attributes:
    config: the grid file, as given to `--config`.
    size: of the grid.
    overrides: flags of `train.py` that every run gets.
  """

  config: str
  size: str
  overrides: tuple[str, ...] = ()

  def train(self, run: Run, folder: pathlib.Path) -> list[str]:
    """`train.py` on the configuration that was resolved, kept in `folder`."""
    cfg = with_overrides(run.cfg, beginning(run, folder))
    return [
      "train.py",
      f"--config={PINNED}:{pin(folder, cfg)}",
      f"--workdir={folder}",
    ]

  def train_by_name(self, run: Run, folder: pathlib.Path) -> list[str]:
    """The same from the grid file, as a person would type it."""
    fields = {SEED_FIELD: run.seed, **beginning(run, folder)}
    return [
      "train.py",
      f"--config={self.config}:{self.size}/{run.cell.name}",
      *self.overrides,
      *(f"--config.{path}={value}" for path, value in fields.items()),
      f"--workdir={folder}",
    ]

  def evaluate(
    self, run: Run, measure: Measure, folder: pathlib.Path
  ) -> list[str]:
    """`eval.py` with its flags."""
    return [
      "eval.py",
      f"--checkpoint={folder}",
      f"--workdir={eval_folder(folder, run.cell)}",
      *measure.arguments(),
    ]


def beginning(run: Run, folder: pathlib.Path) -> dict[str, str]:
  """The field that names what a run begins with, beside its own folder."""
  if run.after is None:
    return {}
  return {BEGINNING_FIELD: str(folder_of(folder.parents[1], run.after))}


class Sweep:
  """Works through tasks, several at a time."""

  def __init__(
    self,
    commands: Commands,
    workdir: str | os.PathLike[str],
    *,
    jobs: int = 1,
    report: Callable[[Outcome], None] = lambda outcome: None,
  ):
    """Starts nothing yet.

    Args:
      commands: of the grid.
      workdir: of the grid.
      jobs: runs at a time; each gets its share of the cores, or of the GPUs in
        `CUDA_VISIBLE_DEVICES`.
      report: told of every outcome, in the thread of its run.
    """
    self._commands, self._workdir = commands, pathlib.Path(workdir)
    self._jobs, self._report = jobs, report
    self._children: set[subprocess.Popen] = set()
    self._failed: set[str] = set()
    self._planned: set[str] = set()
    self._guard = threading.Lock()
    self._stopped = threading.Event()

  def run(self, tasks: Sequence[Task]) -> list[Outcome]:
    """Works through all tasks; one that fails does not stop the others.

    What another process works on comes last, and is waited for; so does what
    begins with a run that is not trained yet.

    Raises:
      KeyboardInterrupt: after a Ctrl-C or SIGTERM, when all children have
        saved and ended.
    """
    self._failed.clear()
    self._planned = {task.run.hash for task in tasks}
    slots: queue.SimpleQueue[int] = queue.SimpleQueue()
    for slot in range(self._jobs):
      slots.put(slot)

    def work(task: Task, wait: bool) -> Outcome:
      slot = slots.get()
      try:
        outcome = self._work(task, slot, wait)
      finally:
        slots.put(slot)
      if outcome.status is Status.FAILED:
        self._failed.add(task.run.hash)
      if outcome.status is not Status.BUSY:
        self._report(outcome)
      return outcome

    with (
      _interrupting(self.stop),
      concurrent.futures.ThreadPoolExecutor(self._jobs) as pool,
    ):
      first = list(pool.map(lambda task: work(task, False), tasks))
      busy = [o.task for o in first if o.status is Status.BUSY]
      later = iter(list(pool.map(lambda task: work(task, True), busy)))
    if self._stopped.is_set():
      raise KeyboardInterrupt
    return [next(later) if o.status is Status.BUSY else o for o in first]

  def stop(self) -> None:
    """Asks every child to save and end; nothing is started any more."""
    self._stopped.set()
    with self._guard:
      for child in self._children:
        child.send_signal(signal.SIGTERM)

  def _work(self, task: Task, slot: int, wait: bool) -> Outcome:
    folder = folder_of(self._workdir, task.run)
    while not self._stopped.is_set():
      before = self._before(task.run)
      if before is Status.FAILED:
        why = "what it begins with is not trained"
        return Outcome(task, Status.FAILED, 0.0, why)
      if before is Status.DONE:
        with locked(folder) as lock:
          if lock is not None:
            return self._both(task, folder, slot, lock)
      if not wait:
        break
      time.sleep(POLL_S)
    return Outcome(task, Status.BUSY, 0.0)

  def _before(self, run: Run) -> Status:
    """Whether what a run begins with is there, is coming, or will not come."""
    if run.after is None:
      return Status.DONE
    folder = folder_of(self._workdir, run.after)
    if is_trained(folder, run.after):
      return Status.DONE
    name = run.after.hash
    coming = name in self._planned or is_locked(folder)
    return Status.BUSY if coming and name not in self._failed else Status.FAILED

  def _both(
    self, task: Task, folder: pathlib.Path, slot: int, lock: int
  ) -> Outcome:
    """Trains, then evaluates, as far as it was not done before."""
    seconds = 0.0
    for name, command, arguments in self._missing(task, folder):
      if self._stopped.is_set():
        return Outcome(task, Status.BUSY, seconds)
      start = time.monotonic()
      code = self._call(command, folder / f"{name}.log", slot, lock)
      spent = time.monotonic() - start
      if self._stopped.is_set() and code:
        return Outcome(task, Status.BUSY, seconds)
      event = add_event(folder, name, arguments, code, spent)
      seconds += spent
      if code:
        log = folder / f"{name}.log"
        why = f"{describe_failure(event)}: {last_line(log)} (see {log})"
        return Outcome(task, Status.FAILED, seconds, why)
    return Outcome(task, Status.DONE, seconds)

  def _missing(
    self, task: Task, folder: pathlib.Path
  ) -> Iterator[tuple[str, list[str], tuple[str, ...]]]:
    """Commands that a task still needs: name, command, what is noted."""
    if not is_trained(folder, task.run):
      yield "train", self._commands.train(task.run, folder), ()
    for measure in missing_measures(folder, task.measures):
      command = self._commands.evaluate(task.run, measure, folder)
      yield "eval", command, measure.arguments()

  def _call(
    self, command: list[str], log: pathlib.Path, slot: int, lock: int
  ) -> int:
    """Runs a command of the project to its end; returns its exit code."""
    cores = share_of_cores(slot, self._jobs)
    if cores:
      os.sched_setaffinity(0, cores)  # Of this thread, and so of its child.
    with log.open("ab") as output:
      child = subprocess.Popen(
        [sys.executable, str(ROOT / command[0]), *command[1:]],
        env=environment(slot, self._jobs),
        stdout=output,
        stderr=subprocess.STDOUT,
        pass_fds=(lock,),
        # A Ctrl-C reaches this process alone, which then asks the children.
        start_new_session=True,
      )
    with self._guard:
      self._children.add(child)
      if self._stopped.is_set():
        child.send_signal(signal.SIGTERM)
    code = child.wait()
    with self._guard:
      self._children.discard(child)
    return code


def share_of_cores(slot: int, jobs: int) -> set[int]:
  """The cores of one of several jobs; empty: all, nothing to divide."""
  try:
    cores = sorted(os.sched_getaffinity(os.getpid()))
  except AttributeError:  # not on every system
    return set()
  if jobs == 1 or len(cores) < jobs:
    return set()
  each = len(cores) // jobs
  return set(cores[slot * each : (slot + 1) * each])


def environment(slot: int, jobs: int) -> dict[str, str]:
  """Variables of a child: its share of the GPUs, and where the package is."""
  found = dict(os.environ)
  gpus = [g for g in found.get("CUDA_VISIBLE_DEVICES", "").split(",") if g]
  if jobs > 1 and len(gpus) >= jobs:
    each = len(gpus) // jobs
    mine = gpus[slot * each : (slot + 1) * each]
    found["CUDA_VISIBLE_DEVICES"] = ",".join(mine)
  path = found.get("PYTHONPATH", "")
  found["PYTHONPATH"] = f"{ROOT}{os.pathsep}{path}" if path else str(ROOT)
  return found


def last_line(log: pathlib.Path) -> str:
  """The last line of a log that says something; "" without one."""
  if not log.exists():
    return ""
  text = log.read_text(encoding="utf-8", errors="replace")
  lines = [line.strip() for line in text.splitlines() if line.strip()]
  errors = [line for line in lines if line.startswith("error:")]
  return (errors or lines or [""])[-1]


@contextlib.contextmanager
def _interrupting(stop: Callable[[], None]) -> Iterator[None]:
  """SIGTERM and Ctrl-C call `stop`; the waiting goes on until it has worked."""
  numbers = (signal.SIGTERM, signal.SIGINT)
  if threading.current_thread() is not threading.main_thread():
    yield
    return
  before = [signal.signal(number, lambda *_: stop()) for number in numbers]
  try:
    yield
  finally:
    for number, handler in zip(numbers, before, strict=True):
      signal.signal(number, handler)
