"""Processes that start together, and those that must not."""

import os
import pathlib
import re
import socket
import subprocess
import sys
import time

import pytest

from hsa_jax.parallel import Cluster, Launch, Process, StartError, start
from hsa_jax.parallel.checklist import Phase
from hsa_jax.parallel.distributed import Watchdog, disagreements

ROOT = pathlib.Path(__file__).parents[2]
PROGRAM = """
import os, sys
from hsa_jax import parallel
try:
  launch = parallel.read_launch(os.environ)
  rows = parallel.start(launch, facts={"configuration": sys.argv[1]})
  for folder in sys.argv[2:]:
    own = folder.replace("ID", str(launch.process_id))
    parallel.check_shared(own, patience_s=1)
    print("shared", folder)
except parallel.StartError as error:
  sys.exit(f"refused: {error}")
print("started", len(rows), sum(row.local_devices for row in rows))
"""


def process(host="a", told=2, local_devices=4, device="TPU v5e", **facts):
  return Process(host, told, local_devices, device, {"jax": "1", **facts})


def test_equal_processes_agree():
  rows = (process("a", 2), process("b", 2))
  expected = Launch(Cluster.ADDRESS, expect_processes=2, expect_devices=8)
  assert not list(disagreements(expected, rows))
  assert not list(disagreements(Launch(), rows))


DIFFERENT = [
  ((process(), process("b", 3)), "JAX_NUM_PROCESSES = 3 in process 1 .b.: 2 "),
  (
    (process(), process("b", local_devices=3)),
    "local devices: 4 in process 0 .a., 3 in process 1 .b.; must be equal",
  ),
  ((process(), process("b", device="cpu")), "device: TPU v5e .*cpu in process"),
  ((process(), process("b", jax="2")), "jax: 1 in process 0 .a., 2 in process"),
  (
    (process(told=7), *(process(told=7, jax=str(i)) for i in range(2, 8))),
    "5 in process 4 .a. and 2 more",
  ),
]


@pytest.mark.parametrize(("rows", "message"), DIFFERENT)
def test_differences_are_named(rows, message):
  (problem,) = disagreements(Launch(), rows)
  assert re.search(message, problem), problem


def test_wrong_counts_are_named():
  rows = tuple(process(f"host{i}", 0) for i in range(6))
  launch = Launch(Cluster.TPU, expect_processes=64, expect_devices=256)
  few, devices = disagreements(launch, rows)
  assert "HSA_EXPECT_PROCESSES = 64: 6 have joined" in few
  assert "host0, host1, host2, host3 and 2 more" in few
  assert "HSA_EXPECT_DEVICES = 256: the job has 24 (6 x 4, TPU v5e)" in devices


def test_alone_is_silent_and_still_expects():
  said: list[str] = []
  (row,) = start(Launch(expect_processes=1), say=said.append)
  assert row.local_devices >= 1 and not said
  with pytest.raises(StartError, match="HSA_EXPECT_PROCESSES = 2: 1 have"):
    start(Launch(expect_processes=2))


def test_the_watchdog_speaks_once_and_gives_up():
  said, ended = [], []
  launch = Launch(Cluster.ADDRESS, "h:1", 2, 1, timeout_s=1)
  dog = Watchdog(launch, say=said.append, give_up=lambda: ended.append(1))
  with dog:
    dog.enter(Phase.REGISTRATION)
    dog._thread.join(30)
  assert ended == [1] and len(said) == 1
  assert "did not start in 1 s: waiting for all processes to join" in said[0]


def test_the_watchdog_rests_when_all_is_well():
  said, ended = [], []
  launch = Launch(Cluster.ADDRESS, "h:1", 2, 1, timeout_s=100)
  start_s = time.monotonic()
  with Watchdog(launch, say=said.append, give_up=lambda: ended.append(1)):
    pass
  assert time.monotonic() - start_s < 20 and not said and not ended


def run_together(*members: tuple[str, ...], **environ: str):
  """Exit code, output and errors of processes (id, number, arguments)."""
  with socket.socket() as probe:
    probe.bind(("localhost", 0))
    address = f"localhost:{probe.getsockname()[1]}"
  common = {
    "JAX_PLATFORMS": "cpu",
    "JAX_NUM_CPU_DEVICES": "2",
    "JAX_COORDINATOR_ADDRESS": address,
    "HSA_START_TIMEOUT_S": "240",
    **environ,
  }
  workers = [
    subprocess.Popen(
      [sys.executable, "-c", PROGRAM, *arguments],
      cwd=ROOT,
      env={
        **os.environ, **common,
        "JAX_PROCESS_ID": index, "JAX_NUM_PROCESSES": number,
      },
      stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )
    for index, number, *arguments in members
  ]  # fmt: skip
  try:
    ends = [worker.communicate(timeout=600) for worker in workers]
  finally:
    for worker in workers:
      worker.kill()
  return [(w.returncode, *end) for w, end in zip(workers, ends, strict=True)]


def test_two_processes_start():
  ends = run_together(("0", "2", "x"), ("1", "2", "x"), HSA_EXPECT_DEVICES="4")
  for index, (code, out, err) in enumerate(ends):
    assert code == 0, err[-3000:]
    assert "started 2 4" in out.splitlines()  # Gloo prints around it.
    assert f"start: process {index} of 2 on " in err
    assert f"start: process {index} of 2 has 2 of 4 devices (cpu)" in err
    assert ("start: coordinator localhost:" in err) == (index == 0)


def test_a_wrong_number_ends_every_process():
  """JAX joins these two; the second believes in a third."""
  ends = run_together(("0", "2", "x"), ("1", "3", "y"))
  for code, out, err in ends:
    assert code == 1 and "started" not in out, err[-3000:]
    assert "refused: the job cannot start" in err
    assert "JAX_NUM_PROCESSES = 3 in process 1" in err
    assert "configuration: x in process 0" in err


def test_a_folder_of_each_host_alone_is_refused(tmp_path):
  folders = ("x", f"{tmp_path}/one", f"{tmp_path}/of-ID")
  for code, out, err in run_together(
    ("0", "2", *folders), ("1", "2", *folders)
  ):
    assert code == 1 and f"shared {tmp_path}/one" in out, err[-3000:]
    assert "process 0 writes is not seen by process 1" in err
  assert not list((tmp_path / "one").iterdir())


@pytest.mark.parametrize(
  ("index", "message"),
  [
    ("0", "waiting for all processes to join (process 0)"),
    ("1", "waiting for the coordinator to listen (process 1)"),
  ],
)
def test_a_process_that_waits_in_vain_says_what_to_check(index, message):
  ((code, out, err),) = run_together((index, "2", "x"), HSA_START_TIMEOUT_S="2")
  assert code == 2 and not out
  assert f"did not start in 2 s: {message}" in err
  assert "  1. " in err and "Check failure" not in err
