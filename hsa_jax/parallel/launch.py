"""What the environment says of the other processes of a job.

Touches no device and no network: `distributed.start` acts on it.
"""

import dataclasses
import enum
from collections.abc import Mapping

CLUSTER = "HSA_CLUSTER"
ADDRESS = "JAX_COORDINATOR_ADDRESS"
NUM_PROCESSES = "JAX_NUM_PROCESSES"
PROCESS_ID = "JAX_PROCESS_ID"
EXPECT_PROCESSES = "HSA_EXPECT_PROCESSES"
EXPECT_DEVICES = "HSA_EXPECT_DEVICES"
TIMEOUT = "HSA_START_TIMEOUT_S"
DEFAULT_TIMEOUT_S = 300

# Set by schedulers that start several tasks, without saying who coordinates.
_TASK_COUNTS = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")
# Set on TPU hosts whose job spans several hosts or several slices.
_TPU_HOSTS = ("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES")
_TPU_SLICES = "MEGASCALE_NUM_SLICES"


class StartError(ValueError):
  """Reasons why the processes of a job cannot start together.

  Attributes:
    problems: one line each: what, its value, the rule, the fix.
  """

  def __init__(self, problems: list[str]):
    self.problems = list(problems)
    super().__init__("\n  ".join(["the job cannot start", *self.problems]))


class Cluster(enum.StrEnum):
  """How the processes of a job find one another."""

  ALONE = "alone"  # there is one
  ADDRESS = "address"  # by the three variables JAX_*
  TPU = "tpu"  # JAX asks the TPU host


@dataclasses.dataclass(frozen=True)
class Launch:
  """How this process is to start.

  Attributes:
    cluster: how the others are found.
    coordinator: `host:port` of process 0, or "" where JAX finds it.
    num_processes: of the job; None where JAX finds it.
    process_id: of this process, from 0; None where JAX finds it.
    expect_processes: any other number is an error; None expects nothing.
    expect_devices: of the whole job; likewise.
    timeout_s: seconds that the others have to arrive.
  """

  cluster: Cluster = Cluster.ALONE
  coordinator: str = ""
  num_processes: int | None = None
  process_id: int | None = None
  expect_processes: int | None = None
  expect_devices: int | None = None
  timeout_s: int = DEFAULT_TIMEOUT_S


def read_launch(environ: Mapping[str, str]) -> Launch:
  """Reads the variables that `docs/launching.md` lists.

  Args:
    environ: the environment of the process.

  Raises:
    StartError: naming every variable that is missing, malformed, or at odds
      with another. In particular a task of a scheduler that nobody told its
      coordinator is refused: n tasks must not become n lone runs.
  """
  problems: list[str] = []
  cluster = _cluster(environ, problems)
  total, index = None, None
  if cluster is Cluster.ADDRESS:
    total, index = _place(environ, problems)
  launch = Launch(
    cluster=cluster,
    coordinator=_coordinator(cluster, environ, problems),
    num_processes=total,
    process_id=index,
    expect_processes=_count(environ, EXPECT_PROCESSES, problems),
    expect_devices=_count(environ, EXPECT_DEVICES, problems),
    timeout_s=_count(environ, TIMEOUT, problems) or DEFAULT_TIMEOUT_S,
  )
  if problems:
    raise StartError(problems)
  return launch


def require_alone(environ: Mapping[str, str], command: str) -> None:
  """Refuses several processes for a command that works in one.

  Raises:
    StartError: if the environment belongs to a job of several.
  """
  launch = read_launch(environ)
  if launch.cluster is not Cluster.ALONE:
    raise StartError(
      [
        f"{command} runs in one process, and this environment is of a job of"
        f" several ({_evidence(environ)}): start it once, on one host, with"
        f" {CLUSTER}=alone"
      ]
    )


def _cluster(environ: Mapping[str, str], problems: list[str]) -> Cluster:
  asked, address = environ.get(CLUSTER, ""), environ.get(ADDRESS, "")
  if asked not in ("", "auto", "alone", "tpu"):
    problems.append(f"{CLUSTER} = {asked!r}: must be one of auto, alone, tpu")
  if asked == "tpu" and address:
    problems.append(
      f"{CLUSTER} = 'tpu' and {ADDRESS} = {address!r}: with the first JAX finds"
      " the coordinator by itself; unset one of them"
    )
  if asked == "alone":
    return Cluster.ALONE
  if asked == "tpu":
    return Cluster.TPU
  if address:
    return Cluster.ADDRESS
  if _is_tpu_job(environ):
    return Cluster.TPU
  for name in _TASK_COUNTS:
    if environ.get(name, "1") not in ("", "1"):
      problems.append(
        f"{name} = {environ[name]}: this task was not told its coordinator, so"
        f" each would train alone; set {ADDRESS}, {NUM_PROCESSES} and"
        f" {PROCESS_ID} as launch/slurm.sh does, or {CLUSTER}=alone if one"
        " process is meant"
      )
  return Cluster.ALONE


def _is_tpu_job(environ: Mapping[str, str]) -> bool:
  hosts = max(len(environ.get(n, "").split(",")) for n in _TPU_HOSTS)
  return hosts > 1 or environ.get(_TPU_SLICES, "1") not in ("", "1")


def _evidence(environ: Mapping[str, str]) -> str:
  names = (CLUSTER, ADDRESS, *_TPU_HOSTS, _TPU_SLICES)
  return ", ".join(f"{n}={environ[n]}" for n in names if environ.get(n))


def _coordinator(
  cluster: Cluster, environ: Mapping[str, str], problems: list[str]
) -> str:
  if cluster is not Cluster.ADDRESS:
    return ""
  address = environ[ADDRESS]
  host, _, port = address.rpartition(":")
  if not host or not port.isdecimal() or not 0 < int(port) < 65536:
    problems.append(
      f"{ADDRESS} = {address!r}: must be host:port of process 0, as in"
      " 10.0.0.1:8476"
    )
  return address


def _place(
  environ: Mapping[str, str], problems: list[str]
) -> tuple[int | None, int | None]:
  """Number of processes, and which one this is."""
  total = _count(environ, NUM_PROCESSES, problems)
  index = _count(environ, PROCESS_ID, problems, least=0)
  for name in (NUM_PROCESSES, PROCESS_ID):
    if not environ.get(name):
      problems.append(
        f"{name} is not set, {ADDRESS} is: every process needs all three; see"
        " launch/"
      )
  if total is not None and index is not None and index >= total:
    problems.append(
      f"{PROCESS_ID} = {index}: processes count from 0, so it must be below"
      f" {NUM_PROCESSES} = {total}"
    )
  return total, index


def _count(
  environ: Mapping[str, str], name: str, problems: list[str], least: int = 1
) -> int | None:
  text = environ.get(name, "")
  if not text:
    return None
  if not text.isdecimal() or int(text) < least:
    problems.append(f"{name} = {text!r}: must be a whole number from {least}")
    return None
  return int(text)
