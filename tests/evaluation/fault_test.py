"""Limits of the system: one message, exit code 2, earlier results kept."""

import errno
import os
import pathlib
import subprocess
import sys

import pytest

from hsa_jax.cli import evaluate
from hsa_jax.cli.faults import explain_fault
from hsa_jax.evaluation.results import read_lines

from .helpers import make_checkpoint

# The command under a limit that begins once JAX runs.
LIMITED = """
import resource, sys
import jax, psutil
from hsa_jax.cli import evaluate
from hsa_jax.evaluation import room
from hsa_jax.memory import MemoryBytes
kind, size, trusting, *argv = sys.argv[1:]
jax.block_until_ready(jax.jit(lambda x: x + 1)(1))
limit = int(size)
if kind == "AS":
  limit += psutil.Process().memory_info().vms
resource.setrlimit(getattr(resource, "RLIMIT_" + kind), (limit, limit))
if trusting == "trusting":  # the plan looks at a machine that has everything
  room.available = lambda folder: MemoryBytes(1 << 50, 1 << 50, 1 << 50)
sys.exit(evaluate.main(argv))
"""
GIB, MIB = 1 << 30, 1 << 20


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
  folder = tmp_path_factory.mktemp("fault") / "run"
  make_checkpoint(folder)
  return folder


def limited(checkpoint, workdir, limit, *flags, trusting=False):
  """The error line of the command, which ends with exit code 2."""
  kind, size = limit
  trust = "trusting" if trusting else "careful"
  where = (f"--checkpoint={checkpoint}", f"--workdir={workdir}")
  result = subprocess.run(
    [sys.executable, "-c", LIMITED, kind, str(size), trust, *where, *flags],
    env={
      **os.environ,
      "JAX_PLATFORMS": "cpu",
      "PYTHONPATH": os.getcwd(),
      "MALLOC_ARENA_MAX": "2",  # address space of threads, where cores are many
    },
    capture_output=True,
    text=True,
    timeout=600,
  )
  assert result.returncode == 2, result.stderr[-3000:]
  assert "Traceback" not in result.stderr, result.stderr[-3000:]
  (line,) = [x for x in result.stderr.splitlines() if x.startswith("error")]
  return line


def predictions(workdir) -> list[dict]:
  return read_lines(pathlib.Path(workdir) / "predictions.jsonl")


def finish(checkpoint, workdir, *flags) -> list[dict]:
  where = (f"--checkpoint={checkpoint}", f"--workdir={workdir}")
  assert evaluate.main([*where, *flags]) == 0
  return predictions(workdir)


def test_address_space_that_the_plan_sees(checkpoint, tmp_path):
  flags = ("--lengths=256,64M", "--samples=1")
  line = limited(checkpoint, tmp_path, ("AS", GIB), *flags)
  assert "--memory=host needs 9.00 GiB host of" in line
  assert not predictions(tmp_path)  # refused before anything is computed


@pytest.mark.parametrize(
  ("home", "message"),
  [
    ("host", "needs 4.50 GiB of RAM, and the system refuses it"),
    ("device", "need 4.50 GiB of device memory, and it is refused"),
  ],
)
def test_address_space_that_runs_out(checkpoint, tmp_path, home, message):
  """The memory is refused in the middle: what was finished is used again."""
  flags = ("--samples=1", f"--memory={home}")
  line = limited(
    checkpoint,
    tmp_path,
    ("AS", 2 * GIB),
    "--lengths=256,32M",
    *flags,
    trusting=True,
  )
  assert message in line
  kept = predictions(tmp_path)
  assert [row["length"] for row in kept] == [256]
  assert finish(checkpoint, tmp_path, "--lengths=256", *flags) == kept


def test_file_that_may_not_grow(checkpoint, tmp_path):
  flags = ("--lengths=256,64K", "--samples=1", "--memory=disk")
  line = limited(checkpoint, tmp_path, ("FSIZE", 4 * MIB), *flags)
  assert "needs 9.00 MiB, more than a file may have here" in line
  assert not list((tmp_path / "memory").iterdir())
  kept = predictions(tmp_path)
  assert [row["length"] for row in kept] == [256]
  assert finish(checkpoint, tmp_path, *flags)[:1] == kept


def test_results_that_do_not_fit_the_disk(checkpoint, tmp_path):
  """The limit is met in the middle of a line."""
  flags = ("--lengths=256", "--samples=8")
  line = limited(checkpoint, tmp_path, ("FSIZE", 4_000), *flags)
  assert "predictions.jsonl: File too large; make room" in line
  kept = predictions(tmp_path)
  assert 1 <= len(kept) < 8
  lines = finish(checkpoint, tmp_path, *flags)
  assert lines[: len(kept)] == kept and len(lines) == 8


def test_disk_that_fills_up_inside_a_sample(
  checkpoint, tmp_path, monkeypatch, capsys
):
  flags = ("--lengths=256,64K", "--samples=1")
  where = (f"--checkpoint={checkpoint}", f"--workdir={tmp_path}")
  pwrite, written = os.pwrite, []

  def filling(fd, data, offset):
    written.append(len(data))
    if sum(written) > 4 * MIB:
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return pwrite(fd, data, offset)

  with monkeypatch.context() as patch:
    patch.setattr(os, "pwrite", filling)
    patch.setattr("hsa_jax.evaluation.room.COMMIT_EVERY_S", 0.0)
    assert evaluate.main([*where, *flags, "--memory=disk"]) == 2
  (line,) = [
    x for x in capsys.readouterr().err.splitlines() if x.startswith("error")
  ]
  assert "chunks-0.bin needs 9.00 MiB, the disk has" in line
  kept = predictions(tmp_path)
  lines = finish(checkpoint, tmp_path, *flags, "--memory=disk")
  assert lines[:1] == kept and lines[1]["tokens_read"] < 64 * 1024
  assert "going on at token" in capsys.readouterr().out


def test_only_faults_of_the_machine_are_explained():
  assert explain_fault(FileNotFoundError(errno.ENOENT, "no", "x"), "") is None
  full = OSError(errno.ENOSPC, "No space left on device", "report.md")
  assert explain_fault(full, "").startswith("report.md: No space left")
  told = explain_fault(MemoryError(), "use a smaller --batch")
  assert told == "out of memory (refused by the system): use a smaller --batch"
