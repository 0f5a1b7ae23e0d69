"""The benchmark of samples asks every task, and sees a bar that is missed."""

import json
import time

import pytest

from benchmarks import samples
from hsa_jax.data.ruler.tasks import TASKS
from hsa_jax.evaluation import ruler
from tests.data.ruler_cases import install
from tests.evaluation.helpers import make_store


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
  """Runs the command with stand-ins for all files; code, rows and stdout."""
  install(monkeypatch, tmp_path)
  make_store(tmp_path / "store")

  def call(*flags):
    code = samples.main(
      [
        f"--store={tmp_path / 'store'}",
        f"--assets={tmp_path}",
        f"--out={tmp_path / 'out'}",
        *flags,
      ]
    )
    (path,) = (tmp_path / "out").glob("samples_*.json")
    return code, json.loads(path.read_text())["rows"], capsys.readouterr().out

  return call


def test_tasks_are_measured_where_they_are_defined(run):
  tasks = [t for t in TASKS if t != "cwe" and not t.startswith("qa")]
  code, rows, out = run(
    "--suites=ruler", "--length=256K", f"--tasks={','.join(tasks)}"
  )
  assert [row["task"] for row in rows if row["task"] != "fwe"] == [
    task for task in tasks if task != "fwe"
  ]
  lengths = {row["task"]: row["length"] for row in rows}
  assert lengths.pop("fwe") == 128 << 10
  assert set(lengths.values()) == {256 << 10}
  assert all(row["seconds"] >= 0 for row in rows)
  assert code in (0, 1) and "niah_multikey_3" in out


def test_the_engines_are_put_back(run):
  before = ruler.run_generated_job
  run("--suites=ruler,ppl", "--length=16K", "--tasks=vt")
  assert ruler.run_generated_job is before


def test_a_slow_task_is_told(run, monkeypatch):
  build = samples.find_maker

  def slowly(*args):
    make = build(*args)

    def slow(number):
      time.sleep(0.02)
      return make(number)

    return slow

  monkeypatch.setattr(samples, "find_maker", slowly)
  monkeypatch.setattr(samples, "MAX_SECONDS", 0.01)
  code, _, out = run("--suites=ruler", "--length=16K", "--tasks=vt")
  assert code == 1 and "<- too much" in out
