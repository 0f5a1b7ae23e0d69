"""Runs `sharded_cases.py` on 8 virtual devices, in a process of its own."""

import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).parent


def test_on_virtual_devices():
  result = subprocess.run(
    [sys.executable, "-m", "pytest", "-q", "-x", HERE / "sharded_cases.py"],
    cwd=HERE.parents[1],
    env={**os.environ, "JAX_NUM_CPU_DEVICES": "8", "JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
    timeout=900,
  )
  assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-2000:]
