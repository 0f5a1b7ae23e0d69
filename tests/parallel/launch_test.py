"""What the environment may say, and what is refused with one message."""

import re

import pytest

from hsa_jax.parallel import (
  Cluster,
  Launch,
  StartError,
  read_launch,
  require_alone,
)
from hsa_jax.parallel.checklist import Phase, checklist

JOINED = {
  "JAX_COORDINATOR_ADDRESS": "10.0.0.1:8476",
  "JAX_NUM_PROCESSES": "4",
  "JAX_PROCESS_ID": "3",
}


def test_nothing_is_one_process():
  assert read_launch({}) == Launch()
  assert read_launch({"SLURM_NTASKS": "1"}).cluster is Cluster.ALONE


def test_three_variables_are_a_job():
  extra = {
    "HSA_EXPECT_PROCESSES": "4",
    "HSA_EXPECT_DEVICES": "32",
    "HSA_START_TIMEOUT_S": "60",
  }
  assert read_launch({**JOINED, **extra, "SLURM_NTASKS": "4"}) == Launch(
    Cluster.ADDRESS, "10.0.0.1:8476", 4, 3, 4, 32, 60
  )


@pytest.mark.parametrize(
  "environ",
  [
    {"HSA_CLUSTER": "tpu"},
    {"TPU_WORKER_HOSTNAMES": "a,b"},
    {"TPU_WORKER_HOSTNAMES": "a", "MEGASCALE_NUM_SLICES": "2"},
  ],
)
def test_tpu_hosts_ask_jax(environ):
  assert read_launch(environ).cluster is Cluster.TPU


def test_a_host_of_its_own_is_alone():
  assert read_launch({"TPU_WORKER_HOSTNAMES": "me"}).cluster is Cluster.ALONE
  told = {**JOINED, "HSA_CLUSTER": "alone", "SLURM_NTASKS": "9"}
  assert read_launch(told).cluster is Cluster.ALONE


REFUSED = [
  ({"HSA_CLUSTER": "slurm"}, "HSA_CLUSTER = 'slurm': must be one of auto"),
  ({**JOINED, "HSA_CLUSTER": "tpu"}, "unset one of them"),
  ({**JOINED, "JAX_PROCESS_ID": "4"}, "JAX_PROCESS_ID = 4: .*below"),
  ({**JOINED, "JAX_PROCESS_ID": "-1"}, "JAX_PROCESS_ID = '-1': .*from 0"),
  ({**JOINED, "JAX_NUM_PROCESSES": ""}, "JAX_NUM_PROCESSES is not set"),
  ({**JOINED, "JAX_COORDINATOR_ADDRESS": "host"}, "must be host:port"),
  ({**JOINED, "JAX_COORDINATOR_ADDRESS": "host:0"}, "must be host:port"),
  ({"HSA_EXPECT_DEVICES": "many"}, "HSA_EXPECT_DEVICES = 'many': .*from 1"),
  ({"SLURM_NTASKS": "8"}, "SLURM_NTASKS = 8: .*each would train alone"),
  ({"OMPI_COMM_WORLD_SIZE": "2"}, "HSA_CLUSTER=alone"),
]


@pytest.mark.parametrize(("environ", "message"), REFUSED)
def test_refused(environ, message):
  with pytest.raises(StartError, match=message):
    read_launch(environ)


def test_all_problems_at_once():
  with pytest.raises(StartError) as error:
    read_launch({"HSA_EXPECT_DEVICES": "0", "HSA_START_TIMEOUT_S": "soon"})
  assert len(error.value.problems) == 2


def test_a_command_for_one_process_refuses_a_job():
  require_alone({}, "eval.py")
  require_alone({**JOINED, "HSA_CLUSTER": "alone"}, "eval.py")
  with pytest.raises(StartError, match="eval.py runs in one process.*10.0.0.1"):
    require_alone(JOINED, "eval.py")


@pytest.mark.parametrize("phase", list(Phase))
def test_a_checklist_is_numbered_and_names_what_it_can(phase):
  launch = read_launch(JOINED)
  text = checklist(launch, phase, {"HTTPS_PROXY": "x", "no_proxy": "y"})
  assert "did not start in 300 s" in text and str(phase) in text
  assert "(process 3)" in text and "HSA_START_TIMEOUT_S=600" in text
  assert re.findall(r"^  (\d)\. ", text, re.M)[:2] == ["1", "2"]
  assert "Set here: HTTPS_PROXY. " in text


def test_a_closed_port_and_missing_processes_are_told_apart():
  launch = read_launch(JOINED)
  closed = checklist(launch, Phase.COORDINATOR, {})
  missing = checklist(launch, Phase.REGISTRATION, {})
  assert "nc -zv 10.0.0.1 8476" in closed and "proxy" not in closed
  assert "are 4 processes running" in missing
