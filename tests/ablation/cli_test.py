"""The command: its messages, its exit codes, what it prints."""

import pathlib
import re
import shlex
import subprocess
import typing

import pytest

from hsa_jax.ablation import make_runs
from hsa_jax.ablation.emit import workload
from hsa_jax.ablation.execute import Outcome
from hsa_jax.ablation.records import write_records
from hsa_jax.ablation.resolve import resolve_all
from hsa_jax.ablation.state import Status, add_event, folder_of
from hsa_jax.cli import sweep
from hsa_jax.cli.sweep import main
from hsa_jax.cli.sweep_flags import read_arguments, read_seeds
from hsa_jax.evaluation.lengths import FlagError

ROOT = pathlib.Path(__file__).resolve().parents[2]

GRID = """
import dataclasses
from hsa_jax.ablation import Cell, Grid, Measure, cell_config
from hsa_jax import config as c

SIZES = ("one", "two")

def get_grid(size):
  hsa = c.HsaConfig(chunk_size=8, top_k=2, landmark_dim=16, encoder_mlp_dim=32)
  model = c.ModelConfig(
    embed_dim=32, num_lower_layers=1, num_upper_layers=1, num_heads=2,
    num_kv_heads=2, head_dim=16, mlp_dim=48, window_size=16, hsa=hsa,
  )
  stage = c.StageConfig(num_steps=4, seq_len=160, batch_size=2)
  return Grid(
    size=size,
    base=c.Config(
      model=model,
      data=c.DataConfig(stages=(stage,)),
      optimizer=c.OptimizerConfig(warmup_steps=1),
    ),
    cells=(
      Cell("A1", "slots", "slots do not matter", {"model.hsa.top_k": 4}),
      Cell("A2", "residual", "nor does this",
           {"model.hsa.residual": "standard"}),
      EXTRA
    ),
    measures=(Measure("256", "2", "hsa_ruler", "s_niah"),),
    subsets={"slots": ("A1",)},
  )

def get_config(name="one/base"):
  return cell_config(get_grid, name)
"""
BAD = (
  'Cell("A3", "x", "y", {"model.hsa.top_k": 0, "model.num_kv_heads": 3,'
  ' "train.spike_factor": 1.0}),'
)


@pytest.fixture
def make(tmp_path):
  def make(extra: str = "") -> str:
    path = tmp_path / "my_grid.py"
    path.write_text(GRID.replace("EXTRA", extra))
    return f"--config={path}"

  return make


def refused(capsys, *arguments) -> str:
  """The message of a command that must end with exit code 2."""
  assert main(list(arguments)) == 2
  error = capsys.readouterr().err
  assert error.startswith("error: ") and "Traceback" not in error
  return error


@pytest.fixture
def no_process(monkeypatch):
  def fail(*args, **kwargs):
    raise AssertionError("a process was started")

  monkeypatch.setattr(subprocess, "Popen", fail)


@pytest.mark.usefixtures("no_process")
@pytest.mark.parametrize("action", ["--check", "--run", "--emit=shell"])
def test_a_planted_bad_cell_is_named_before_anything_starts(
  capsys, make, tmp_path, action
):
  where = f"--workdir={tmp_path / 'work'}"
  error = refused(capsys, make(BAD), action, where)
  for line in (
    "3 problems in the grid; nothing was started",
    "A3: model.hsa.top_k = 0: must be at least 1",
    "A3: model.num_kv_heads = 3: must divide",
    "A3: train.spike_factor = 1.0: must be above 1",
  ):
    assert line in error
  assert not (tmp_path / "work").exists()


def test_cells_that_were_not_asked_for_do_not_matter(capsys, make):
  assert main([make(BAD), "--check", "--subset=slots"]) == 0
  assert "2 cells of size 'one' are valid" in capsys.readouterr().out


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--list", "--sied=2"], "'--sied=2' is not a flag of this command"),
    ([], "say what to do: --list, --check"),
    (["--list", "--size=three"], "--size=three: must be one of one, two"),
    (["--list", "--subset=slot"], "did you mean 'slots'"),
    (["--list", "--cells=A7"], "'A7' names no cell"),
    (["--list", "--jobs=0"], "--jobs=0: must be at least 1"),
    (["--list", "--seeds=x"], "--seeds=x: write how many"),
    (["--emit=slrm"], "'slrm' is not one of .*did you mean 'slurm'"),
    (["--check", "--config.train.sed=1"], "sed = 1: no such field.*'seed'"),
    (["--check", "--config.model.mlp_dim=8"], "belongs to the grid file"),
    (["--report"], "no run of this grid is finished"),
  ],
)
def test_bad_input_is_one_message(capsys, make, tmp_path, arguments, message):
  where = [f"--workdir={tmp_path / 'w'}"] * ("--jobs=0" not in arguments)
  assert re.search(message, refused(capsys, make(), *arguments, *where), re.S)


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("", "there is no such Python file"),
    ("x = 1", "no grid; it needs SIZES"),
    ("import nowhere", "ModuleNotFoundError"),
    ("SIZES = ('a',)\ndef get_grid(size):\n  return 3", "returned int"),
  ],
)
def test_a_file_without_a_grid_is_refused(capsys, tmp_path, text, message):
  path = tmp_path / "g.py"
  if text:
    path.write_text(text)
  assert message in refused(capsys, f"--config={path}", "--list")


def test_listing_says_what_differs(capsys, make):
  assert main([make(), "--list"]) == 0
  out = capsys.readouterr().out
  assert re.search(r"A1 +[0-9,]+ +\+0.0% +[0-9.]+  hsa.top_k: 2 -> 4", out)
  assert "--subset=slots: A1" in out


def test_seeds():
  assert read_seeds("3") == (0, 1, 2)
  assert read_seeds("100,") == (100,)
  assert read_seeds("7,5,7") == (7, 5)
  for text in ("", "0", "-1", "a", "1-3"):
    with pytest.raises(FlagError, match="--seeds"):
      read_seeds(text)


def test_status_tells_every_run(capsys, make, tmp_path):
  arguments = read_arguments(
    [make(), "--status", "--seeds=2", f"--workdir={tmp_path}"]
  )
  runs = [p.run for p in sweep._progress(arguments)]
  folder = folder_of(tmp_path, runs[1])
  folder.mkdir(parents=True)
  add_event(folder, "train", (), 1, 3.0)
  assert main([make(), "--status", "--seeds=2", f"--workdir={tmp_path}"]) == 0
  out = capsys.readouterr().out
  assert re.search(r"A1-s0 +\w{12}  failed +train.py ended with code 1", out)
  assert "6 runs: 5 waiting, 1 failed" in out


@pytest.mark.usefixtures("no_process")
def test_a_missing_store_is_one_message(capsys, make, tmp_path):
  store = tmp_path / "nothing"
  error = refused(
    capsys,
    make(),
    "--run",
    f"--workdir={tmp_path / 'w'}",
    "--config.data.corpus=files",
    f"--config.data.store={store}",
  )
  assert "no token store there; make it" in error


def store(folder, arguments, cells) -> None:
  """Lines of every run of some cells, as a report of another machine has."""
  found, _ = resolve_all(arguments.grid, arguments.cells)
  runs = [r for r in make_runs(found, (0, 1)) if r.cell.name in cells]
  line = {"suite": "hsa_ruler", "length": 256}
  folder.mkdir()
  write_records(
    folder,
    [
      {**line, "cell": run.cell.name, "seed": run.seed, "hash": run.hash}
      for run in runs
    ],
    runs,
  )


class Planned:
  """Stands in for a sweep; remembers what it was given."""

  names: typing.ClassVar[list[str]] = []

  def __init__(self, commands, workdir, *, jobs, report):
    pass

  def run(self, tasks):
    self.names[:] = [task.run.name for task in tasks]
    return []


@pytest.mark.parametrize(
  ("extra", "names"),
  [
    ("", ["A2-s0", "A2-s1"]),
    # What another cell begins with is made, wherever its results are.
    (
      'Cell("P", "x", "y", {}, after="A1"),',
      ["A1-s0", "A2-s0", "P-s0", "A1-s1", "A2-s1", "P-s1"],
    ),
  ],
)
def test_what_was_measured_elsewhere_is_not_run(
  capsys, make, tmp_path, monkeypatch, extra, names
):
  monkeypatch.setattr(sweep, "Sweep", Planned)
  monkeypatch.setattr(sweep, "ensure_store", lambda data: None)
  flags = [make(extra), "--seeds=2", f"--workdir={tmp_path / 'w'}"]
  flags.append(f"--stored={tmp_path / 'kept'}")
  arguments = read_arguments([*flags, "--run"])
  store(tmp_path / "kept", arguments, ("base", "A1"))
  assert main([*flags, "--run"]) == 0
  assert Planned.names == names
  out = capsys.readouterr().out
  assert "0 finished before, 4 measured elsewhere" in out
  assert re.search(r"A1-s1 +\w{12}  stored", out)


class Broken:
  """Stands in for a sweep of which every run fails."""

  def __init__(self, commands, workdir, *, jobs, report):
    pass

  def run(self, tasks):
    why = "train.py ended with code 1: it broke"
    return [Outcome(task, Status.FAILED, 1.0, why) for task in tasks]


def test_failed_runs_are_told_at_the_end(capsys, make, tmp_path, monkeypatch):
  monkeypatch.setattr(sweep, "Sweep", Broken)
  monkeypatch.setattr(sweep, "ensure_store", lambda data: None)
  assert main([make(), "--run", f"--workdir={tmp_path / 'w'}"]) == 1
  error = capsys.readouterr().err
  assert "3 runs failed" in error and "A1-s0: train.py ended" in error


@pytest.mark.parametrize("target", ["shell", "slurm", "gke"])
def test_emitted_scripts_are_valid_shell(capsys, make, tmp_path, target):
  assert main([make(), f"--emit={target}", "--workdir=/mnt/shared/grid"]) == 0
  script = tmp_path / "script.sh"
  script.write_text(capsys.readouterr().out)
  subprocess.run(["bash", "-n", script], check=True)
  lines = script.read_text().splitlines()
  trained = [line for line in lines if "my_grid.py:one/" in line]
  assert len(trained) == 3
  assert all("--config.train.seed=0" in line for line in trained)
  assert all("/mnt/shared/grid/runs/" in line for line in trained)


def test_emitted_evaluation_is_a_sweep_of_one_run(capsys, make):
  main([make(), "--emit=shell", "--seeds=7,", "--cells=A1"])
  lines = capsys.readouterr().out.splitlines()
  found = [shlex.split(x) for x in lines if "hsa_jax.cli.sweep" in x]
  assert len(found) == 2
  arguments = read_arguments(found[1][3:])
  assert [c.name for c in arguments.cells] == ["A1"]
  assert arguments.seeds == (7,) and arguments.values.run


def test_the_example_of_the_docs_is_a_valid_grid(capsys, tmp_path):
  page = (ROOT / "docs" / "ablation.md").read_text()
  (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
  (tmp_path / "my_grid.py").write_text(code)
  assert main([f"--config={tmp_path / 'my_grid.py'}", "--check"]) == 0
  assert "3 cells of size 'quickstart'" in capsys.readouterr().out


def test_help_teaches(capsys):
  with pytest.raises(SystemExit) as stop:
    main(["--help"])
  assert stop.value.code == 0
  out = capsys.readouterr().out
  for word in ("--run", "--subset=principles", "nothing that is finished is"):
    assert word in out


@pytest.mark.parametrize("target", ["shell", "slurm", "gke"])
def test_what_is_trained_alike_is_emitted_once(capsys, make, target):
  twin = 'Cell("A9", "x", "y", {}, eval_flags=("--batch=2",)),'
  assert main([make(twin), f"--emit={target}", "--cells=A9"]) == 0
  lines = capsys.readouterr().out.splitlines()
  assert sum("my_grid.py:one/" in line for line in lines) == 1
  assert sum("hsa_jax.cli.sweep" in line for line in lines) == 2


def test_emitted_training_waits_for_what_it_begins_with(capsys, make):
  later = 'Cell("P", "x", "y", {}, after="A1"),'
  main([make(later), "--emit=slurm", "--cells=P"])
  lines = capsys.readouterr().out.splitlines()
  _, first, second = (line for line in lines if "my_grid.py:one/" in line)
  number = first.partition("=")[0]
  assert f'--dependency="afterok:${number}"' in second
  assert "--config.train.init_from=" in second
  main([make(later), "--emit=slurm", "--only=P"])
  assert "--dependency" not in capsys.readouterr().out.split("launch/")[0]


def test_workload_names_are_those_that_gke_takes(make):
  arguments = read_arguments(
    [make('Cell("A4-A_very_LONG_name_of_a_cell.of_a_grid", "x", "y", {}),')]
    + ["--list", "--seeds=100,"]
  )
  names = [workload(p.run) for p in sweep._progress(arguments)]
  assert len(set(names)) == 4
  for name in names:
    assert re.fullmatch(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", name), name
