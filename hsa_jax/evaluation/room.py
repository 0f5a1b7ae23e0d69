"""Where the chunks of a job live: planned first, then refilled per batch."""

import json
import pathlib
import time
from collections.abc import Sequence
from typing import Any, Self

import jax
from jax.sharding import Mesh

from hsa_jax.config import MeshConfig, ModelConfig
from hsa_jax.evaluation.results import identity
from hsa_jax.evaluation.session import (
  Job,
  PrefillKind,
  Session,
  Settings,
)
from hsa_jax.inference.caches import capacity_of, plan_context
from hsa_jax.inference.midway import Journal, Midway, from_bytes, to_bytes
from hsa_jax.memory import (
  ChunkMemory,
  DiskMemory,
  Home,
  HostMemory,
  Placement,
  Plan,
  available,
  check_placement,
  make_memory,
)
from hsa_jax.parallel import READ_AXIS, make_mesh

FOLDER = "memory"  # of the disk home, in the results folder
COMMIT_EVERY_S = 5.0  # of reading, the most that a kill costs the disk home


def make_devices(settings: Settings) -> Mesh | None:
  """All devices, if the prefill or the chunks are spread over them."""
  several = jax.device_count() > 1
  spread = (
    settings.prefill is PrefillKind.HALO
    or settings.memory is Home.SHARDED
    or (settings.memory is Home.AUTO and several)
  )
  return make_mesh(MeshConfig()) if spread else None


def plan_room(
  settings: Settings,
  model: ModelConfig,
  length: int,
  folder: pathlib.Path,
  mesh: Mesh | None = None,
) -> Plan:
  """The home for contexts of `length` tokens, and what it takes.

  Raises:
    MemoryHomeError: if the home asked for, or any, does not fit; or the caches
      of layers that see the whole context.
    ValueError: if that home cannot store `settings.kv_dtype`, or cannot follow
      a prefill that runs on several devices.
  """
  shards = 1 if mesh is None else mesh.shape[READ_AXIS]
  if settings.memory is Home.DEVICE and shards > 1:
    raise ValueError(
      f"--memory=device with --prefill=halo on {shards} devices: chunks come"
      " from all of them; keep them on all with --memory=sharded, or outside"
      " with host or disk"
    )
  plan = plan_context(
    model,
    length=length,
    batch=settings.batch,
    home=settings.memory,
    free=available(folder),
    kv_dtype=settings.kv_dtype,
    shards=shards,
    kv_place=settings.kv_place,
  )
  if plan.home is Home.SHARDED:
    check_placement(_placement(settings, mesh))
  return plan


def _placement(settings: Settings, mesh: Mesh | None) -> Placement:
  assert mesh is not None, "the sharded home has its devices"
  return Placement(mesh, READ_AXIS, settings.kv_place)


class DiskJournal:
  """A `Journal` beside the chunks of the disk home: both or neither."""

  def __init__(self, memory: DiskMemory, carry: Any):
    """Takes up what the memory came with.

    Args:
      memory: just opened or restarted.
      carry: what the lower decoder remembers, for its structure.
    """
    self._memory = memory
    self._last = time.monotonic()
    state = memory.state()
    self.midway = None if state is None else from_bytes(state, carry)

  def due(self) -> bool:
    return time.monotonic() - self._last >= COMMIT_EVERY_S

  def save(self, midway: Midway) -> None:
    self._memory.commit(to_bytes(midway))
    self._last = time.monotonic()


class Room:
  """A memory that is emptied and filled again.

  Closed, it leaves no file; but after an error, or a kill, the disk home's
  chunks of a context half read stay for the next run.
  """

  def __init__(self, session: Session, length: int):
    """Plans for contexts of `length` tokens; takes the room when first used.

    Raises:
      MemoryHomeError: if they do not fit.
    """
    self._session = session
    self._folder = session.results.path / FOLDER
    settings, model = session.settings, session.cfg.model
    self._plan = plan_room(settings, model, length, self._folder, session.mesh)
    self._placement: Placement | None = None
    if self._plan.home is Home.SHARDED:
      self._placement = _placement(settings, session.mesh)
    self._memory: ChunkMemory | None = None

  def __enter__(self) -> Self:
    return self

  def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
    if isinstance(self._memory, DiskMemory):
      keep = kind is not None and self._memory.num_durable > 0
      self._memory.close(delete=not keep)
      if not keep:
        self._folder.rmdir()

  def emptied(self) -> ChunkMemory:
    """The memory without chunks; what an earlier call gave is used up."""
    return self._refill("")  # nothing is ever committed under this name

  def taken_up(
    self, job: Job, numbers: Sequence[int]
  ) -> tuple[ChunkMemory, Journal | None]:
    """The memory for some samples, with what an interrupted run read of them.

    Returns:
      The memory, empty or as far as it was read; and, of the disk home, the
      journal that knows how far that is.
    """
    memory, session = self._refill(self._context(job, numbers)), self._session
    if not isinstance(memory, DiskMemory):
      return memory, None
    batch, capacity = session.settings.batch, capacity_of(job.length)
    carry = jax.eval_shape(lambda: session.model.init_carry(batch, capacity))
    journal = DiskJournal(memory, carry)
    if journal.midway is not None:
      done = journal.midway.stop
      session.message(f"{job.name}: going on at token {done:,} of a sample")
      session.skip(done * len(numbers))
    return memory, journal

  def _refill(self, context: str) -> ChunkMemory:
    memory = self._memory
    if isinstance(memory, HostMemory):
      memory.clear()
    elif isinstance(memory, DiskMemory):
      memory.restart(context)
    else:
      memory = self._memory = make_memory(
        self._plan,
        folder=self._folder,
        identity=context,
        placement=self._placement,
      )
      if isinstance(memory, DiskMemory) and memory.notice:
        self._session.message(f"warning: {memory.notice}")
    return memory

  def _context(self, job: Job, numbers: Sequence[int]) -> str:
    """All that chunks and stretches of these samples depend on."""
    session = self._session
    return json.dumps(
      {
        **identity(session.results.info),
        **job.key,
        "samples": list(numbers),
        "prefill": str(session.settings.prefill),
        "segment": session.settings.segment,
        "devices": 1 if session.mesh is None else session.mesh.shape[READ_AXIS],
      }
    )
