"""Runs a file of tests in a process that has several devices.

The number of devices is fixed when JAX starts, so tests that need another one
stand in `*_cases.py`, which pytest does not collect, and a test runs that file.
"""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
# The answers are under test, not the speed of the programs.
COMPILE_FAST = (
  "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)
FAST_AND_SLOW = pytest.mark.parametrize(
  "which", ["not slow", pytest.param("slow", marks=pytest.mark.slow)]
)


def run_cases(
  cases: pathlib.Path,
  *,
  devices: int = 8,
  which: str = "not slow",
  xla_flags: str = COMPILE_FAST,
  timeout: int = 900,
) -> str:
  """Fails with what pytest printed if a case fails; returns it otherwise."""
  result = subprocess.run(
    [sys.executable, "-m", "pytest", "-q", "-x", "-m", which, cases],
    cwd=ROOT,
    env={
      **os.environ,
      "JAX_NUM_CPU_DEVICES": str(devices),
      "JAX_PLATFORMS": "cpu",
      "XLA_FLAGS": xla_flags,
    },
    capture_output=True,
    text=True,
    timeout=timeout,
  )
  assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-2000:]
  return result.stdout
