"""The real command, killed in the middle: nothing finished is repeated."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from hsa_jax.ablation.state import EVENTS, RUNS, read_events
from hsa_jax.data.corpora import Corpus, Document
from hsa_jax.data.store import build_store
from hsa_jax.data.tokenizer import load_tokenizer

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).resolve().parents[2]
GRID = """
import dataclasses
from configs import ablation

SIZES = ("smoke",)

def get_grid(size):
  grid = ablation.get_grid(size)
  data = dataclasses.replace(grid.base.data, corpus="files", store="STORE")
  base = dataclasses.replace(grid.base, data=data)
  near, position, far = grid.measures
  far = dataclasses.replace(far, cells=("A3",))
  return dataclasses.replace(grid, base=base, measures=(near, position, far))
"""
WORDS = "the house of a man who had never seen so many books was by the sea "


@pytest.fixture(scope="module")
def grid_file(tmp_path_factory):
  folder = tmp_path_factory.mktemp("grid")
  documents = [
    Document(f"{split}", split, 20_000, lambda: WORDS * 300)
    for split in ("train", "valid", "test")
  ]
  corpus = Corpus("files", "tests", tuple(documents))
  build_store(corpus, load_tokenizer("byte"), folder / "store")
  path = folder / "grid.py"
  path.write_text(GRID.replace("STORE", str(folder / "store")))
  return path


def command(grid_file, workdir, *more: str) -> list[str]:
  return [
    sys.executable,
    "-m",
    "hsa_jax.cli.sweep",
    f"--config={grid_file}",
    "--subset=square",
    "--seeds=1",
    f"--workdir={workdir}",
    *more,
  ]


def environment(grid_file) -> dict[str, str]:
  return {
    **os.environ,
    "JAX_PLATFORMS": "cpu",
    "PYTHONPATH": str(ROOT),
    "JAX_COMPILATION_CACHE_DIR": str(grid_file.parent / "cache"),
  }


def run(grid_file, workdir, *more: str) -> str:
  done = subprocess.run(
    command(grid_file, workdir, *more),
    cwd=ROOT,
    env=environment(grid_file),
    capture_output=True,
    text=True,
    timeout=3_000,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  return done.stdout


def events(workdir) -> dict[str, list[dict]]:
  """Commands that ended, by run."""
  files = sorted((workdir / RUNS).glob(f"*/{EVENTS}"))
  return {file.parent.name: read_events(file.parent) for file in files}


def kill_in_the_middle(grid_file, workdir) -> None:
  """Kills the sweep, without warning, while its third run is training."""
  process = subprocess.Popen(
    command(grid_file, workdir, "--run"),
    cwd=ROOT,
    env=environment(grid_file),
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
  deadline = time.monotonic() + 1_500
  while True:
    folders = list((workdir / RUNS).glob("*/metrics.jsonl"))
    finished = [e for e in events(workdir).values() if len(e) >= 2]
    if len(folders) >= 3 and len(finished) >= 2:
      break
    assert process.poll() is None and time.monotonic() < deadline
    time.sleep(0.05)
  process.send_signal(signal.SIGKILL)
  assert process.wait(timeout=60) == -signal.SIGKILL


def test_killed_and_started_again_it_is_the_same_grid(grid_file, tmp_path):
  whole, killed = tmp_path / "whole", tmp_path / "killed"
  run(grid_file, whole, "--run", "--report")
  kill_in_the_middle(grid_file, killed)
  before = {name: lines for name, lines in events(killed).items() if lines}
  assert 2 <= len(before) < 4
  out = run(grid_file, killed, "--run", "--report")
  assert "4 runs: 4 done" in out
  after = events(killed)
  assert len(after) == 4
  for name, lines in before.items():
    assert after[name][: len(lines)] == lines
  for name, lines in after.items():
    # One training, two evaluations, and one more of the finalist. The command
    # that outlived its sweep ended with nobody to note it.
    wanted = ["train", *["eval"] * (3 if name.startswith("A3-") else 2)]
    asked = [line["command"] for line in lines if not line["code"]]
    assert asked == wanted or (name not in before and asked == wanted[1:])
  for file in ("summary.csv", "records.jsonl"):
    assert table(killed, file) == table(whole, file), file
  again = run(grid_file, killed, "--run")
  assert "4 finished before" in again
  assert events(killed) == after


def table(workdir, file: str) -> str:
  """A file of the report, without the seconds that training took."""
  text = (workdir / "report" / file).read_text()
  if file != "records.jsonl":
    return text
  lines = [json.loads(line) for line in text.splitlines()]
  return json.dumps([{**line, "train_s": 0} for line in lines])
