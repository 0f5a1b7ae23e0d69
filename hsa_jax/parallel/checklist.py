"""What to look at when the processes of a job do not come together."""

import enum
from collections.abc import Iterator, Mapping

from hsa_jax.parallel.launch import (
  ADDRESS,
  NUM_PROCESSES,
  PROCESS_ID,
  TIMEOUT,
  Cluster,
  Launch,
)

_PROXIES = ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy")


class Phase(enum.StrEnum):
  """What a starting process waits for."""

  COORDINATOR = "waiting for the coordinator to listen"
  REGISTRATION = "waiting for all processes to join"
  DEVICES = "waiting for the devices"
  AGREEMENT = "waiting to compare the processes"


def checklist(launch: Launch, phase: Phase, environ: Mapping[str, str]) -> str:
  """The message of a start that timed out.

  Args:
    launch: what was tried.
    phase: where it stopped.
    environ: the environment, whose proxies are named.
  """
  who = "" if launch.process_id is None else f" (process {launch.process_id})"
  lines = [
    f"error: the job did not start in {launch.timeout_s} s: {phase}{who}",
    *(f"  {i}. {item}" for i, item in enumerate(_items(launch, phase), 1)),
  ]
  proxies = sorted({n for n in environ if n.lower() in _PROXIES})
  if proxies:
    lines.append(
      f"  Set here: {', '.join(proxies)}. A proxy between the hosts stops"
      " them: unset it, or list the hosts in no_proxy"
    )
  lines.append(
    f"  More time: {TIMEOUT}={2 * launch.timeout_s}. More: docs/launching.md"
  )
  return "\n".join(lines)


def _items(launch: Launch, phase: Phase) -> Iterator[str]:
  where = launch.coordinator or "the first host"
  count = launch.num_processes or "all"
  if phase is Phase.COORDINATOR:
    host, _, port = launch.coordinator.rpartition(":")
    yield f"is process 0 running on {host}? Read its log: it may have failed"
    yield f"does the name resolve here? getent hosts {host}"
    yield f"is the port open from here? nc -zv {host} {port}"
    yield f"{ADDRESS} must name an address of process 0, not localhost"
  elif phase is Phase.REGISTRATION:
    yield (
      f"are {count} processes running? Each prints 'start: process i of n':"
      " look for the i that is missing, and at why it ended"
    )
    if launch.cluster is Cluster.ADDRESS:
      yield (
        f"{ADDRESS} and {NUM_PROCESSES} must be equal in all, {PROCESS_ID}"
        " different in each, from 0"
      )
    yield f"can every host reach {where}? Firewalls between hosts stop it"
    yield "did all start within the time? Images are pulled, code is copied"
  elif phase is Phase.DEVICES:
    yield "does another process hold the devices? lsof /dev/accel* /dev/vfio/*"
    yield "is the plugin of the devices installed? pip list | grep -i jax"
    yield "a TPU waits for every host of its slice: did one end early?"
  else:
    yield "a process ended after joining: read the last lines of every log"
    yield "can the hosts reach one another on every port, not just one?"
