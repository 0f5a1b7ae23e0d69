"""The scripts of launch/, with stand-ins for the programs of a cluster.

The stand-ins do what the real ones do with what they are given: `gcloud` runs a
host's command in a home of its own, `srun` starts tasks with numbers. So the
quoting is tested too, and not only what is printed.
"""

import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "launch").glob("*.sh"))
AWKWARD = ["--config=configs/a.py", "--config.train.x=(1, 'two')", "--c=$HOME"]


def run(script, *arguments, path=None, **environ):
  env = {k: v for k, v in os.environ.items() if not k.startswith("SLURM")}
  env["PATH"] = f"{path}:{env['PATH']}" if path else env["PATH"]
  return subprocess.run(
    ["bash", str(ROOT / "launch" / script), *arguments],
    cwd=ROOT,
    env={**env, **environ},
    capture_output=True,
    text=True,
    timeout=300,
  )


def program(folder: pathlib.Path, name: str, text: str) -> pathlib.Path:
  path = folder / name
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(f"#!/usr/bin/env bash\n{text}\n")
  path.chmod(0o755)
  return path


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_syntax(script):
  checker = (
    ["shellcheck", "-x"] if shutil.which("shellcheck") else ["bash", "-n"]
  )
  done = subprocess.run([*checker, script], cwd=ROOT, capture_output=True)
  assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_short(script):
  assert script.read_text().count("\n") <= 120


@pytest.mark.parametrize(
  ("kind", "slices", "size"),
  [
    ("v5litepod-256", 1, "64 256"),
    ("v5litepod-16", 2, "8 32"),
    ("v5litepod-8", 1, "1 8"),
    ("v5litepod-1", 1, "1 1"),
    ("v6e-256", 1, "64 256"),
    ("v5p-128", 1, "16 64"),
    ("v5p-8", 4, "4 16"),
    ("v4-16", 1, "2 8"),
  ],
)
def test_hosts_and_chips_of_a_type(kind, slices, size):
  command = f"source launch/common.sh; job_size {kind} {slices}"
  done = subprocess.run(
    ["bash", "-c", command], cwd=ROOT, capture_output=True, text=True
  )
  assert done.stdout.strip() == size


NAMED = ("--name=n", "--zone=z")
REFUSED = [
  ("tpu_vm.sh", ["start", *NAMED], "'start': say create, setup"),
  ("tpu_vm.sh", ["train", "--zone=z"], "--name=NAME is missing"),
  ("tpu_vm.sh", ["create", *NAMED, "--typ=v4-8"], "--typ=v4-8: not a flag"),
  ("tpu_vm.sh", ["create", *NAMED, "--type=h100-8"], "known are v4-N, v5p-N"),
  ("tpu_vm.sh", ["create", *NAMED, "--type=v5p"], "ends in no number"),
  ("tpu_vm.sh", ["train", *NAMED, "--type=v4-8"], "train.py follow --"),
  ("tpu_vm.sh", ["train", *NAMED, "--type=v4-10", "--", "x"], "5 chips do not"),
  ("gke.sh", ["--cluster=c", "--workload=Run_1", "--image=i"], "lower-case"),
  ("gke.sh", ["--workload=a", "--image=i"], "--cluster=NAME is missing"),
  ("slurm.sh", ["--config=x"], "no SLURM job"),
]


@pytest.mark.parametrize(("script", "arguments", "message"), REFUSED)
def test_refused_with_one_message(script, arguments, message):
  done = run(script, *arguments)
  assert done.returncode == 2 and not done.stdout
  assert done.stderr.startswith("error: ") and message in done.stderr
  assert done.stderr.count("\n") == 1


def test_dry_runs_print_what_can_be_pasted():
  create = run("tpu_vm.sh", "create", *NAMED, "--type=v6e-16", "--dry-run")
  assert shlex.split(create.stdout) == [
    *"gcloud compute tpus queued-resources create n".split(),
    "--zone=z",
    "--node-id=n",
    "--accelerator-type=v6e-16",
    "--runtime-version=v2-alpha-tpuv6e",
  ]
  gke = run(
    "gke.sh", "--cluster=c", "--workload=w", "--type=v5litepod-256",
    "--slices=2", "--image=i", "--zone=z", "--dry-run", "--", *AWKWARD,
  )  # fmt: skip
  words = shlex.split(gke.stdout)
  assert words[:3] == ["xpk", "workload", "create"]
  assert {"--tpu-type=v5litepod-256", "--num-slices=2", "--zone=z"} < set(words)
  inner = shlex.split(words[-1].removeprefix("--command="))
  assert inner == [
    "exec", "env", "HSA_CLUSTER=tpu", "HSA_EXPECT_PROCESSES=128",
    "HSA_EXPECT_DEVICES=512", "python", "train.py", *AWKWARD,
  ]  # fmt: skip


# Describes a slice that is there the third time one asks.
GCLOUD = """
for a in "$@"; do
  [[ $a == --command=* ]] && cd HOME && exec bash -c "${a#--command=}"
done
[[ $* == *describe* ]] || exit 0
echo >>POLLS
(($(wc -l <POLLS) > 2)) && echo ACTIVE || echo WAITING
"""
# Writes down what it was given, then runs until it is told to stop.
PYTHON = """
printf '%s\\n' "$HSA_CLUSTER" "$HSA_EXPECT_PROCESSES" "$HSA_EXPECT_DEVICES" \\
  "$@" >seen.part
trap 'echo saved >>seen; exit 143' TERM
mv seen.part seen
while :; do sleep 0.1; done
"""


@pytest.fixture
def cluster(tmp_path):
  """A home with the project's scripts, and a gcloud that works in it."""
  home = tmp_path / "home"
  shutil.copytree(ROOT / "launch", home / "hsa_jax" / "launch")
  program(home, "hsa_jax/.venv/bin/python", PYTHON)
  text = GCLOUD.replace("HOME", str(home))
  program(tmp_path, "gcloud", text.replace("POLLS", f"{tmp_path}/polls"))
  return tmp_path


def wait_for(path: pathlib.Path, text: str = "") -> list[str]:
  for _ in range(1200):
    if path.exists() and text in path.read_text():
      return path.read_text().splitlines()
    time.sleep(0.1)
  raise AssertionError(f"no {text!r} in {path}")


def test_train_runs_detached_and_stops(cluster):
  seen = cluster / "home" / "hsa_jax" / "seen"
  train = ("train", *NAMED, "--type=v5litepod-16", "--", *AWKWARD)
  started = run("tpu_vm.sh", *train, path=cluster)
  try:
    assert started.returncode == 0, started.stderr
    assert wait_for(seen) == ["tpu", "4", "16", "train.py", *AWKWARD]
    again = run("tpu_vm.sh", *train, path=cluster)
    assert again.returncode == 2 and "trains already" in again.stderr
  finally:
    stopped = run("tpu_vm.sh", "stop", *NAMED, path=cluster)
  assert "told to save and stop" in stopped.stdout
  assert wait_for(seen, "saved")[-1] == "saved"


def test_create_waits_for_the_slice(cluster):
  create = ("create", *NAMED, "--type=v5litepod-16")
  done = run("tpu_vm.sh", *create, path=cluster, POLL_S="0")
  assert done.returncode == 0, done.stderr
  states = [line.split()[-1] for line in done.stdout.splitlines()]
  assert states == ["WAITING", "WAITING", "ACTIVE"]


TASKS = """
[[ $1 == --ntasks=2 ]] || exit 9
shift 3
for i in 0 1; do SLURM_PROCID=$i SLURM_NTASKS=2 "$@" & pids+=($!); done
code=0
for pid in "${pids[@]}"; do wait $pid || code=$?; done
exit $code
"""
PLACE = """
import os, sys
from hsa_jax import parallel
launch = parallel.read_launch(os.environ)
print("task", launch.process_id, launch.num_processes, launch.coordinator,
      launch.expect_processes, launch.expect_devices, sys.argv[1:], flush=True)
"""


def submit(folder: pathlib.Path, command: str):
  """Runs slurm.sh in a job of two nodes with `command` as the interpreter."""
  program(folder, "scontrol", f'echo "$@" >>{folder}/scontrol.log; echo node7')
  program(folder, "srun", TASKS)
  python = program(folder, "python", command)
  return run(
    "slurm.sh", *AWKWARD, path=folder, PYTHON=str(python),
    PYTHONPATH=str(ROOT), SLURM_JOB_ID="30123", SLURM_JOB_NUM_NODES="2",
    SLURM_JOB_NODELIST="node[7-8]", SLURM_GPUS_ON_NODE="8",
    SLURM_SUBMIT_DIR=str(ROOT),
  )  # fmt: skip


def test_slurm_tells_each_task_its_place(tmp_path):
  (tmp_path / "place.py").write_text(PLACE)
  done = submit(
    tmp_path, f'shift; exec {sys.executable} {tmp_path}/place.py "$@"'
  )
  assert done.returncode == 0, done.stderr
  assert sorted(done.stdout.splitlines()) == [
    f"task {i} 2 node7:20123 2 16 {AWKWARD}" for i in range(2)
  ]
  assert "requeue" not in (tmp_path / "scontrol.log").read_text()


@pytest.mark.parametrize(("code", "again"), [(143, True), (2, False)])
def test_slurm_queues_a_stopped_run_again(tmp_path, code, again):
  assert submit(tmp_path, f"exit {code}").returncode == code
  log = (tmp_path / "scontrol.log").read_text()
  assert ("requeue 30123" in log) == again
