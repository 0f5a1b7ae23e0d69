"""The axes of the mesh on 8 virtual devices."""

import os
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent


@pytest.mark.parametrize(
  "which", ["not slow", pytest.param("slow", marks=pytest.mark.slow)]
)
def test_on_virtual_devices(which):
  cases = HERE / "context_cases.py"
  result = subprocess.run(
    [sys.executable, "-m", "pytest", "-q", "-x", "-m", which, cases],
    cwd=HERE.parents[1],
    env={
      **os.environ,
      "JAX_NUM_CPU_DEVICES": "8",
      "JAX_PLATFORMS": "cpu",
      # The partitioning is under test, not the speed of the program.
      "XLA_FLAGS": "--xla_backend_optimization_level=0"
      " --xla_llvm_disable_expensive_passes=true",
    },
    capture_output=True,
    text=True,
    timeout=3000,
  )
  assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-2000:]
