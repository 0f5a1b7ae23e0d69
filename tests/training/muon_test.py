"""Runs the cases of `muon_cases.py` in a process with four devices."""

import os
import pathlib
import subprocess
import sys

CASES = pathlib.Path(__file__).with_name("muon_cases.py")


def test_cases_on_four_devices():
  done = subprocess.run(
    [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", CASES],
    env={**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "4"},
    capture_output=True,
    text=True,
    timeout=600,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  assert "4 passed" in done.stdout
