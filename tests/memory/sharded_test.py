"""The sharded home on 8 virtual devices, and on those of two processes."""

import os
import pathlib
import socket
import subprocess
import sys

from tests.devices import FAST_AND_SLOW, run_cases

HERE = pathlib.Path(__file__).parent


@FAST_AND_SLOW
def test_on_virtual_devices(which):
  cases = HERE / "sharded_cases.py"
  run_cases(cases, which=which, xla_flags="")


TWO_PROCESSES = """
import sys
import jax
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
from tests.memory import sharded_cases as t
assert len(jax.devices()) == 4 and len(jax.local_devices()) == 2
t.test_same_selection_and_output(4, "ties")
"""


def test_two_processes_share_one_memory():
  with socket.socket() as probe:
    probe.bind(("localhost", 0))
    address = f"localhost:{probe.getsockname()[1]}"
  env = {**os.environ, "JAX_NUM_CPU_DEVICES": "2", "JAX_PLATFORMS": "cpu"}
  workers = [
    subprocess.Popen(
      [sys.executable, "-c", TWO_PROCESSES, address, str(rank)],
      cwd=HERE.parents[1],
      env=env,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    for rank in range(2)
  ]
  try:
    outputs = [worker.communicate(timeout=600)[0] for worker in workers]
  finally:
    for worker in workers:
      worker.kill()
  for worker, output in zip(workers, outputs, strict=True):
    assert worker.returncode == 0, output[-5000:]
