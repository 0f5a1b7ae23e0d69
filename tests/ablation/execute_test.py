"""Runs as processes: what is repeated, what is not, and what a crash leaves."""

import json
import pathlib
import subprocess
import sys
import threading
import time

import pytest
from absl import flags

from hsa_jax.ablation import Cell, make_runs
from hsa_jax.ablation.check import check
from hsa_jax.ablation.execute import (
  Commands,
  Outcome,
  Sweep,
  Task,
  environment,
  share_of_cores,
)
from hsa_jax.ablation.grid import Measure
from hsa_jax.ablation.resolve import resolve_all
from hsa_jax.ablation.state import (
  Status,
  eval_folder,
  folder_of,
  locked,
  progress_of,
  read_events,
)
from hsa_jax.cli import config_flag
from hsa_jax.config import config_hash, with_overrides
from hsa_jax.training.workdir import WorkdirError, check_workdir

from .grids import CELLS, grid

# Raised by ml_collections, where it reads a config file.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module")

# Notes its call; a file named "fail-CELL" in the workdir makes training fail.
TRAIN = """
import pathlib, sys, time
folder, steps, cell, root = sys.argv[1:]
with open(root + "/calls", "a") as f: f.write(f"train {cell}\\n")
while pathlib.Path(root, f"wait-{cell}").exists(): time.sleep(0.01)
if pathlib.Path(root, f"fail-{cell}").exists():
  print("error: it broke", flush=True)
  raise SystemExit(3)
pathlib.Path(folder, "checkpoints", steps).mkdir(parents=True)
"""
EVAL = """
import sys
folder, cell, root, *arguments = sys.argv[1:]
with open(root + "/calls", "a") as f: f.write(f"eval {cell}\\n")
"""


class Stand:
  """Commands that stand in for `train.py` and `eval.py`."""

  def __init__(self, root: pathlib.Path):
    self.root = root
    for name, text in (("train.py", TRAIN), ("eval.py", EVAL)):
      (root / name).write_text(text)

  def train(self, run, folder):
    steps = str(run.cfg.num_steps)
    return [str(self.root / "train.py"), str(folder), steps, *self._tail(run)]

  def evaluate(self, run, measure, folder):
    command = [str(self.root / "eval.py"), str(folder), *self._tail(run)]
    return [*command, *measure.arguments()]

  def _tail(self, run):
    return [run.cell.name, str(self.root)]

  def calls(self) -> list[str]:
    path = self.root / "calls"
    return sorted(path.read_text().split("\n")[:-1]) if path.exists() else []


@pytest.fixture
def stand(tmp_path):
  return Stand(tmp_path)


def tasks(made=None) -> list[Task]:
  made = made or grid()
  found, _ = resolve_all(made, made.all_cells())
  return [Task(r, made.measures_of(r.cell)) for r in make_runs(found, [0])]


def sweep(stand, **options) -> Sweep:
  return Sweep(stand, stand.root / "grid", **options)


def statuses(outcomes: list[Outcome]) -> dict[str, Status]:
  return {o.task.run.cell.name: o.status for o in outcomes}


ALL = ["base", "A1-none", "A1-two", "A2-mean"]
CALLS = sorted(
  [*(f"{what} {c}" for what in ("train", "eval") for c in ALL), "eval A2-mean"]
)


@pytest.mark.parametrize("jobs", [1, 2])
def test_everything_runs_once(stand, jobs):
  told = []
  outcomes = sweep(stand, jobs=jobs, report=told.append).run(tasks())
  assert statuses(outcomes) == dict.fromkeys(ALL, Status.DONE)
  assert stand.calls() == CALLS
  assert len(told) == 4
  again = sweep(stand, jobs=jobs).run(tasks())
  assert stand.calls() == CALLS, "something was repeated"
  assert all(o.seconds == 0 for o in again)


def test_one_failure_does_not_stop_the_rest(stand):
  (stand.root / "fail-A1-none").touch()
  outcomes = sweep(stand).run(tasks())
  found = statuses(outcomes)
  assert found.pop("A1-none") is Status.FAILED
  assert set(found.values()) == {Status.DONE}
  (failed,) = [o for o in outcomes if o.failure]
  assert "train.py ended with code 3: error: it broke" in failed.failure
  (progress,) = [
    progress_of(stand.root / "grid", t.run, t.measures)
    for t in tasks()
    if t.run.cell.name == "A1-none"
  ]
  assert progress.status is Status.FAILED
  (stand.root / "fail-A1-none").unlink()
  outcomes = sweep(stand).run(tasks())
  assert statuses(outcomes) == dict.fromkeys(ALL, Status.DONE)
  assert stand.calls().count("train A1-none") == 2
  assert stand.calls().count("train base") == 1


LATER = (
  Cell("P1", "further steps", "they change nothing", {}, after="A1-none"),
  Cell("P2", "further steps", "nor do these", {}, after="P1"),
)


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_run_begins_when_what_it_begins_with_is_trained(stand, jobs):
  planned = tasks(grid(cells=(*CELLS, *LATER)))
  outcomes = sweep(stand, jobs=jobs).run(planned)
  assert {o.status for o in outcomes} == {Status.DONE}
  order = [
    call.split()[1]
    for call in (stand.root / "calls").read_text().splitlines()
    if call.startswith("train")
  ]
  assert sorted(order) == sorted([*ALL, "P1", "P2"])
  assert order.index("A1-none") < order.index("P1") < order.index("P2")


def test_what_should_follow_a_failure_fails_without_a_call(stand):
  (stand.root / "fail-A1-none").touch()
  planned = tasks(grid(cells=(*CELLS, *LATER)))
  outcomes = {o.task.run.cell.name: o for o in sweep(stand).run(planned)}
  assert outcomes["P1"].failure == "what it begins with is not trained"
  assert outcomes["P2"].status is Status.FAILED
  assert outcomes["base"].status is Status.DONE
  assert not any("P1" in call or "P2" in call for call in stand.calls())
  assert not list((stand.root / "grid").rglob("P*")), "nothing was begun"


def test_the_beginning_is_part_of_the_command_and_of_the_hash(tmp_path):
  planned = [t.run for t in tasks(grid(cells=(*CELLS, *LATER)))]
  base, first, none, one, two = (planned[i] for i in (0, 1, 1, -2, -1))
  assert none.cfg != one.cfg == base.cfg == two.cfg, "only what comes before"
  assert len({base.hash, first.hash, one.hash, two.hash}) == 4
  commands = Commands("configs/mine.py", "test")
  folder = folder_of(tmp_path, one)
  folder.mkdir(parents=True)
  command = commands.train(one, folder)
  begun = str(folder_of(tmp_path, none))
  assert (
    json.loads((folder / "config.json").read_text())["train"]["init_from"]
    == begun
  )
  assert command[-1] == f"--workdir={folder}"
  by_name = commands.train_by_name(two, folder_of(tmp_path, two))
  assert f"--config.train.init_from={folder}" in by_name


def test_a_new_measure_is_made_of_what_was_trained(stand):
  sweep(stand).run(tasks())
  more = grid(measures=(*grid().measures, Measure("1K", "1", "ppl", "")))
  sweep(stand).run(tasks(more))
  calls = stand.calls()
  assert [calls.count(f"eval {c}") for c in ALL] == [2, 2, 2, 3]
  assert sum(call.startswith("train") for call in calls) == 4


def test_cells_that_differ_in_evaluation_are_trained_once(stand):
  wide = Cell("A9", "K", "K may change", {}, eval_flags=("--batch=2",))
  made = grid(cells=(*CELLS, wide))
  assert not check(made, made.all_cells(), {})[1]
  planned = tasks(made)
  for jobs in (1, 2):
    outcomes = sweep(stand, jobs=jobs).run(planned)
    assert {o.status for o in outcomes} == {Status.DONE}
  calls = stand.calls()
  assert calls.count("train base") + calls.count("train A9") == 1
  assert calls.count("eval base") == calls.count("eval A9") == 1
  first, last = planned[0], planned[-1]
  assert first.run.hash == last.run.hash
  assert last.measures[0].arguments()[-1] == "--batch=2"
  folder = folder_of(stand.root / "grid", first.run)
  assert eval_folder(folder, first.run.cell) == folder / "eval"
  assert eval_folder(folder, last.run.cell) == folder / "eval-A9"


def test_a_run_that_another_process_holds_is_waited_for(stand):
  first, second = tasks()[:2]
  folder = folder_of(stand.root / "grid", first.run)
  found: list[Outcome] = []
  with locked(folder) as lock:
    assert lock is not None
    assert progress_of(stand.root / "grid", *first).status is Status.BUSY
    thread = threading.Thread(
      target=lambda: found.extend(sweep(stand).run([first, second]))
    )
    thread.start()
    wait_for(lambda: "eval A1-none" in stand.calls())
    assert "train base" not in stand.calls()
  thread.join(timeout=60)
  assert [o.status for o in found] == [Status.DONE, Status.DONE]


def test_stop_ends_the_children_and_starts_nothing(stand):
  (stand.root / "wait-base").touch()
  one = sweep(stand)
  raised = []

  def work():
    try:
      one.run(tasks())
    except KeyboardInterrupt:
      raised.append(True)

  thread = threading.Thread(target=work)
  thread.start()
  wait_for(lambda: stand.calls() == ["train base"])
  one.stop()
  thread.join(timeout=60)
  assert raised and stand.calls() == ["train base"]
  (stand.root / "wait-base").unlink()
  outcomes = sweep(stand).run(tasks())
  assert statuses(outcomes) == dict.fromkeys(ALL, Status.DONE)
  assert stand.calls().count("train base") == 2


CHILD = """
import sys
from hsa_jax.ablation.state import locked
import pathlib, subprocess
with locked(pathlib.Path(sys.argv[1])) as lock:
  subprocess.Popen(["sleep", "20"], pass_fds=(lock,),
                   stdout=subprocess.DEVNULL)
  print("held", flush=True)
"""


def test_a_child_that_outlives_its_sweep_keeps_the_run(tmp_path):
  done = subprocess.run(
    [sys.executable, "-c", CHILD, str(tmp_path)],
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
    check=True,
    timeout=60,
  )
  assert b"held" in done.stdout
  with locked(tmp_path) as lock:
    assert lock is None


def test_events_tell_what_was_measured(stand):
  (task,) = tasks()[:1]
  sweep(stand).run([task])
  folder = folder_of(stand.root / "grid", task.run)
  train, evaluation = read_events(folder)
  assert (train["command"], train["code"]) == ("train", 0)
  assert tuple(evaluation["arguments"]) == task.measures[0].arguments()


def test_commands_are_those_a_person_would_type():
  task = tasks()[1]
  commands = Commands("my_grid.py", "test", ("--config.train.log_every=7",))
  folder = pathlib.Path("runs/a")
  assert commands.train_by_name(task.run, folder) == [
    "train.py",
    "--config=my_grid.py:test/A1-none",
    "--config.train.log_every=7",
    "--config.train.seed=0",
    "--workdir=runs/a",
  ]
  assert commands.evaluate(task.run, task.measures[0], folder) == [
    "eval.py",
    "--checkpoint=runs/a",
    "--workdir=runs/a/eval",
    "--suites=hsa_ruler",
    "--tasks=s_niah",
    "--lengths=256",
    "--samples=2",
  ]


def test_a_run_is_trained_from_what_was_resolved(tmp_path):
  """Whatever becomes of the grid file while the grid runs."""
  task = tasks()[1]
  command = Commands("gone.py", "test").train(task.run, tmp_path)
  values = config_flag.parse([*command, "--check"], train_flags)
  cfg = config_flag.read_config(values)
  assert config_hash(cfg) == task.run.hash
  check_workdir(tmp_path, cfg)
  with pytest.raises(WorkdirError, match="train.seed: 0 -> 1"):
    check_workdir(tmp_path, with_overrides(cfg, {"train.seed": 1}))


def train_flags(values):
  flags.DEFINE_string("workdir", None, "", flag_values=values)
  flags.DEFINE_bool("check", False, "", flag_values=values)


def test_jobs_share_cores_and_gpus(monkeypatch):
  monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1, 2, 3, 4})
  assert share_of_cores(0, 1) == set()
  assert [share_of_cores(i, 2) for i in range(2)] == [{0, 1}, {2, 3}]
  assert share_of_cores(0, 6) == set()
  monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
  found = [environment(i, 2)["CUDA_VISIBLE_DEVICES"] for i in range(2)]
  assert found == ["4,5", "6,7"]


def wait_for(ready, seconds=60):
  deadline = time.monotonic() + seconds
  while not ready():
    assert time.monotonic() < deadline, "it never happened"
    time.sleep(0.01)
