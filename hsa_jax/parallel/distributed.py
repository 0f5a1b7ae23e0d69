"""Starts the processes of a job together, or says why that cannot be.

JAX ends a process that waited too long for the others with a stack trace of
its C++ part, which no Python code can catch. So a thread of our own watches the
clock and speaks first. And JAX joins processes that were told different numbers
of them; here everything that must be equal is compared before the first step.
"""

import json
import os
import platform
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from hsa_jax.parallel.checklist import Phase, checklist
from hsa_jax.parallel.launch import (
  EXPECT_DEVICES,
  EXPECT_PROCESSES,
  NUM_PROCESSES,
  Cluster,
  Launch,
  StartError,
)

EXIT_CODE = 2  # something to correct, as the commands have it
_GRACE_S = 60  # of JAX's own time-out beyond ours, so that ours speaks
_REMIND_S = 30
_RECORD_BYTES = 1024
_MAX_NAMED = 4


class Process(NamedTuple):
  """One process of the job, as it describes itself.

  Attributes:
    host: name of its machine.
    told: number of processes it was told; 0 where JAX found it.
    local_devices: devices that it drives.
    device: kind of them.
    facts: what must be equal in all, by name.
  """

  host: str
  told: int
  local_devices: int
  device: str
  facts: dict[str, str]


def start(
  launch: Launch,
  *,
  facts: Mapping[str, str] | None = None,
  say: Callable[[str], None] | None = None,
) -> tuple[Process, ...]:
  """Joins the job, then compares what its processes know.

  Call it before anything that asks JAX for a device. A process that is alone
  says nothing, but what it expects is checked all the same.

  Args:
    launch: from `read_launch`.
    facts: short texts that must be equal in all processes, such as the hash of
      the configuration; versions are added.
    say: where lines go; None is standard error.

  Returns:
    All processes, in order.

  Raises:
    StartError: a wrong number of processes or devices, or processes that
      differ; raised in all of them. If the others do not arrive in time, the
      process ends with a checklist and exit code 2 instead: a call into JAX
      cannot be interrupted.
  """
  say = _to_stderr if say is None else say
  alone = launch.cluster is Cluster.ALONE
  with Watchdog(launch, say=say, active=not alone) as watchdog:
    if not alone:
      _refusals_told("JAX does not join the processes", _join)(
        launch, watchdog, say
      )
    watchdog.enter(Phase.DEVICES)
    _refusals_told("JAX does not start its devices", jax.devices)()
    watchdog.enter(Phase.AGREEMENT)
    processes = _gather(_describe(launch, facts or {}))
  if alone and len(processes) > 1:
    raise StartError(
      [
        f"this host belongs to a job of {len(processes)}, which it has not"
        " joined: set HSA_CLUSTER=tpu, or start with a script of launch/"
      ]
    )
  problems = list(disagreements(launch, processes))
  if problems:
    raise StartError(problems)
  if not alone:
    _introduce(launch, processes, say)
  return processes


def disagreements(
  launch: Launch, processes: tuple[Process, ...]
) -> Iterator[str]:
  """What is not as it must be, one line each; equal in every process."""
  count = len(processes)
  devices = sum(p.local_devices for p in processes)
  for i, process in enumerate(processes):
    if process.told not in (0, count):
      yield (
        f"{NUM_PROCESSES} = {process.told} in process {i} ({process.host}):"
        f" {count} have joined; give all of them the same number"
      )
  if launch.expect_processes not in (None, count):
    yield (
      f"{EXPECT_PROCESSES} = {launch.expect_processes}: {count} have joined"
      f" ({_hosts(processes)}); start one on every host"
    )
  if launch.expect_devices not in (None, devices):
    each = ", ".join(
      str(n) for n in sorted({p.local_devices for p in processes})
    )
    yield (
      f"{EXPECT_DEVICES} = {launch.expect_devices}: the job has {devices}"
      f" ({count} x {each}, {processes[0].device}); look for a host without its"
      " accelerators, or correct the number"
    )
  yield from _differences(processes)


def _differences(processes: tuple[Process, ...]) -> Iterator[str]:
  """Values that are not those of process 0."""
  tables = [
    {"local devices": str(p.local_devices), "device": p.device, **p.facts}
    for p in processes
  ]
  for name, value in tables[0].items():
    others = [i for i, t in enumerate(tables) if t.get(name) != value]
    if not others:
      continue
    named = ", ".join(
      f"{tables[i].get(name)} in process {i} ({processes[i].host})"
      for i in others[:_MAX_NAMED]
    )
    more = (
      f" and {len(others) - _MAX_NAMED} more" if others[_MAX_NAMED:] else ""
    )
    yield (
      f"{name}: {value} in process 0 ({processes[0].host}), {named}{more};"
      " must be equal in all"
    )


class Watchdog:
  """Ends the process, with a checklist, when the others take too long."""

  def __init__(
    self,
    launch: Launch,
    *,
    say: Callable[[str], None],
    active: bool = True,
    give_up: Callable[[], None] | None = None,
  ):
    """Watches from entry to exit of the context.

    Args:
      launch: holds the seconds.
      say: where reminders and the checklist go.
      active: a job of one has nobody to wait for.
      give_up: what ends the process; None is `os._exit`, since the main
        thread is inside JAX and hears nothing.
    """
    self._launch = launch
    self._say = say
    self._active = active
    self._give_up = give_up or (lambda: os._exit(EXIT_CODE))
    self._done = threading.Event()
    self._phase = Phase.COORDINATOR

  def enter(self, phase: Phase) -> None:
    """What is being waited for from now on."""
    self._phase = phase

  def __enter__(self) -> "Watchdog":
    self._start = time.monotonic()
    self._thread = threading.Thread(target=self._watch, daemon=True)
    if self._active:
      self._thread.start()
    return self

  def __exit__(self, *exc: object) -> None:
    self._done.set()
    if self._active:
      self._thread.join()

  @property
  def left_s(self) -> float:
    """Seconds until the end."""
    return self._start + self._launch.timeout_s - time.monotonic()

  def _watch(self) -> None:
    while self.left_s > 0:
      if self._done.wait(min(_REMIND_S, max(self.left_s, 0.01))):
        return
      if self.left_s > 0:
        self._say(
          f"start: still {self._phase}; {self.left_s:.0f} s left of"
          f" {self._launch.timeout_s}"
        )
    self._say(checklist(self._launch, self._phase, os.environ))
    sys.stderr.flush()
    self._give_up()


def _refusals_told(
  what: str, call: Callable[..., object]
) -> Callable[..., object]:
  """`call`, whose refusals become a `StartError`."""

  def checked(*args: Any) -> object:
    try:
      return call(*args)
    except (ValueError, RuntimeError, ImportError) as error:
      first = (str(error).splitlines() or [type(error).__name__])[0]
      raise StartError([f"{what}: {first}; see docs/launching.md"]) from error

  return checked


def _join(
  launch: Launch, watchdog: Watchdog, say: Callable[[str], None]
) -> None:
  host = socket.gethostname()
  if launch.cluster is Cluster.TPU:
    say(f"start: {host} asks the TPU for coordinator and number of processes")
    watchdog.enter(Phase.REGISTRATION)
    jax.distributed.initialize(
      initialization_timeout=launch.timeout_s + _GRACE_S
    )
    return
  say(
    f"start: process {launch.process_id} of {launch.num_processes} on {host},"
    f" coordinator {launch.coordinator}; waits {launch.timeout_s} s at most"
  )
  if launch.process_id != 0:
    _await_coordinator(launch.coordinator, watchdog)
  watchdog.enter(Phase.REGISTRATION)
  jax.distributed.initialize(
    launch.coordinator,
    num_processes=launch.num_processes,
    process_id=launch.process_id,
    # Everything is known: JAX need not ask a metadata server as well.
    cluster_detection_method="deactivate",
    initialization_timeout=launch.timeout_s + _GRACE_S,
  )


def _await_coordinator(address: str, watchdog: Watchdog) -> None:
  """Returns once something listens; tells a closed port from missing peers."""
  host, _, port = address.rpartition(":")
  while True:
    try:
      socket.create_connection((host.strip("[]"), int(port)), 5).close()
      return
    except OSError:
      time.sleep(0.2)
    if watchdog.left_s <= 0:  # The watchdog speaks; this thread waits for it.
      time.sleep(_GRACE_S)


def _describe(launch: Launch, facts: Mapping[str, str]) -> Process:
  return Process(
    host=socket.gethostname(),
    told=launch.num_processes or 0,
    local_devices=jax.local_device_count(),
    device=jax.local_devices()[0].device_kind,
    facts={
      **facts,
      "jax": jax.__version__,
      "python": platform.python_version(),
    },
  )


def _gather(own: Process) -> tuple[Process, ...]:
  """What every process says of itself, everywhere."""
  if jax.process_count() == 1:
    return (own,)
  text = json.dumps(own).encode()
  if len(text) > _RECORD_BYTES:
    raise ValueError(f"facts of a process: {len(text)} bytes, at most 1024")
  record = np.frombuffer(text.ljust(_RECORD_BYTES), np.uint8)
  rows = np.asarray(multihost_utils.process_allgather(record))
  return tuple(Process(*json.loads(row.tobytes())) for row in rows)


def _introduce(
  launch: Launch, processes: tuple[Process, ...], say: Callable[[str], None]
) -> None:
  index = jax.process_index()
  say(
    f"start: process {index} of {len(processes)} has {jax.local_device_count()}"
    f" of {jax.device_count()} devices ({processes[index].device})"
  )
  if index == 0:
    where = launch.coordinator or f"{processes[0].host}, found by JAX"
    say(f"start: coordinator {where}; hosts {_hosts(processes)}")


def _hosts(processes: tuple[Process, ...]) -> str:
  names = list(dict.fromkeys(p.host for p in processes))
  more = len(names) - _MAX_NAMED
  return ", ".join(names[:_MAX_NAMED]) + (
    f" and {more} more" if more > 0 else ""
  )


def _to_stderr(text: str) -> None:
  print(text, file=sys.stderr, flush=True)
