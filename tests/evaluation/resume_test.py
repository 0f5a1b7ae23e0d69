"""The command on the disk home, killed inside a sample and given again."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys

import pytest

from hsa_jax.cli import evaluate
from hsa_jax.evaluation.results import read_lines

from .helpers import make_checkpoint

LENGTH, SEGMENT = 64 * 1024, 4096
STRETCHES = LENGTH // SEGMENT
COMMITS = 9  # of the second sample
# One reader for all runs: what a kill costs is counted in its stretches.
FLAGS = ("--lengths=64K", "--samples=2", "--prefill=sequential")
WRITTEN = ("--suites=passkey", "--tasks=passkey_text")  # not teacher forced
DISK = "--memory=disk"

# Commits after every stretch; dies in the append after the last one wanted.
KILLED = f"""
import os, signal, sys
from hsa_jax.cli import evaluate
from hsa_jax.evaluation import room
from hsa_jax.memory import DiskMemory
room.COMMIT_EVERY_S = 0.0
commit, append, done = DiskMemory.commit, DiskMemory.append, []
def counted(self, state=None):
  commit(self, state)
  done.append(self.num_durable)
def last(self, block):
  append(self, block)
  if len(done) == {STRETCHES - 1 + COMMITS}:
    os.kill(os.getpid(), signal.SIGKILL)
  return self
DiskMemory.commit, DiskMemory.append = counted, last
sys.exit(evaluate.main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
  """Checkpoint, results of a run that nobody disturbed, and of a killed one."""
  folder = tmp_path_factory.mktemp("resume")
  make_checkpoint(folder / "run")
  whole = run(folder / "run", folder / "whole")
  kill(folder / "run", folder / "killed")
  return folder / "run", whole, folder / "killed"


def kill(checkpoint, workdir, *more) -> None:
  """Leaves the results of a command that dies inside its second sample."""
  flags = flags_of(checkpoint, workdir, DISK, *more)
  result = subprocess.run(
    [sys.executable, "-c", KILLED, *flags],
    env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.getcwd()},
    capture_output=True,
    text=True,
    timeout=600,
  )
  assert result.returncode == -signal.SIGKILL, result.stderr[-3000:]


def flags_of(checkpoint, workdir, *more) -> list[str]:
  where = (f"--checkpoint={checkpoint}", f"--workdir={workdir}")
  return [*where, f"--segment={SEGMENT}", *FLAGS, *more]


def run(checkpoint, workdir, *more) -> list[dict]:
  """Prediction lines after the command, which succeeds."""
  assert evaluate.main(flags_of(checkpoint, workdir, *more)) == 0
  return read_lines(pathlib.Path(workdir) / "predictions.jsonl")


def assert_same_predictions(got: list[dict], want: list[dict]) -> None:
  for ours, theirs in zip(got, want, strict=True):
    for field in ("sample", "prediction_ids", "recall_at_k"):
      assert ours[field] == theirs[field]


def test_goes_on_inside_the_sample(killed, tmp_path, capsys):
  checkpoint, whole, left = killed
  workdir = shutil.copytree(left, tmp_path / "eval")
  (first,) = read_lines(workdir / "predictions.jsonl")
  lines = run(checkpoint, workdir, DISK)
  assert lines[0] == first
  assert_same_predictions(lines, whole)
  done = COMMITS * SEGMENT
  assert first["tokens_read"] == LENGTH
  assert lines[1]["tokens_read"] == LENGTH - done
  out = capsys.readouterr().out
  assert f"going on at token {done:,} of a sample" in out
  assert "warning" not in out
  assert not (workdir / "memory").exists()


def test_a_written_answer_goes_on_too(killed, tmp_path, capsys):
  checkpoint, _, _ = killed
  whole = run(checkpoint, tmp_path / "whole", DISK, *WRITTEN)
  kill(checkpoint, tmp_path / "eval", *WRITTEN)
  lines = run(checkpoint, tmp_path / "eval", DISK, *WRITTEN)
  for ours, theirs in zip(lines, whole, strict=True):
    for field in ("sample", "prediction", "recalled_evidence", "recipe"):
      assert ours[field] == theirs[field]
  assert whole[1]["tokens_read"] - lines[1]["tokens_read"] == COMMITS * SEGMENT
  assert "going on at token" in capsys.readouterr().out


def truncate(folder):
  os.truncate(folder / "chunks-0.bin", 1_000_000)


def flip_a_byte(folder):
  with open(folder / "chunks-0.bin", "r+b") as file:
    byte = file.read(1)[0]
    file.seek(0)
    file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize(
  ("damage", "reason"),
  [(truncate, "not as long as it was made"), (flip_a_byte, "were altered")],
)
def test_a_damaged_file_is_built_anew(killed, tmp_path, capsys, damage, reason):
  checkpoint, whole, left = killed
  workdir = shutil.copytree(left, tmp_path / "eval")
  damage(workdir / "memory")
  lines = run(checkpoint, workdir, DISK)
  assert_same_predictions(lines, whole)
  assert lines[1]["tokens_read"] == LENGTH
  out = capsys.readouterr().out
  (line,) = [x for x in out.splitlines() if x.startswith("warning")]
  assert str(workdir / "memory" / "chunks-0.bin") in line and reason in line
  assert "built anew" in line


def test_another_home_leaves_what_was_committed(killed, tmp_path, capsys):
  """And a later run on disk, with another segment, does not take it up."""
  checkpoint, whole, left = killed
  workdir = shutil.copytree(left, tmp_path / "eval")
  lines = run(checkpoint, workdir, "--memory=host")
  assert_same_predictions(lines, whole)
  assert (workdir / "memory" / "chunks-0.json").exists()
  workdir = shutil.copytree(left, tmp_path / "other")
  lines = run(checkpoint, workdir, DISK, "--segment=8192")
  assert_same_predictions(lines, whole)
  assert lines[1]["tokens_read"] == LENGTH
  assert "another context" in capsys.readouterr().out
