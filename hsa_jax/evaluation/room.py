"""Where the chunks of a job live: planned first, then refilled per batch."""

import pathlib
from typing import Self

import jax
from jax.sharding import Mesh

from hsa_jax.config import MeshConfig, ModelConfig
from hsa_jax.evaluation.session import AXIS, PrefillKind, Session, Settings
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
  plan_memory,
)
from hsa_jax.parallel import make_mesh

FOLDER = "memory"  # of the disk home, in the results folder


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
    MemoryHomeError: if the home asked for, or any, does not fit.
    ValueError: if that home cannot store `settings.kv_dtype`, or cannot follow
      a prefill that runs on several devices.
  """
  shards = 1 if mesh is None else mesh.shape[AXIS]
  if settings.memory is Home.DEVICE and shards > 1:
    raise ValueError(
      f"--memory=device with --prefill=halo on {shards} devices: chunks come"
      " from all of them; keep them on all with --memory=sharded, or outside"
      " with host or disk"
    )
  plan = plan_memory(
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
  return Placement(mesh, AXIS, settings.kv_place)


class Room:
  """A memory that is emptied and filled again; closed, it leaves no file."""

  def __init__(self, session: Session, length: int):
    """Plans for contexts of `length` tokens; takes the room when first used.

    Raises:
      MemoryHomeError: if they do not fit.
    """
    self._folder = session.results.path / FOLDER
    settings, model = session.settings, session.cfg.model
    self._plan = plan_room(settings, model, length, self._folder, session.mesh)
    self._placement: Placement | None = None
    if self._plan.home is Home.SHARDED:
      self._placement = _placement(settings, session.mesh)
    self._memory: ChunkMemory | None = None

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *error: object) -> None:
    if isinstance(self._memory, DiskMemory):
      self._memory.close(delete=True)
      self._folder.rmdir()

  def emptied(self) -> ChunkMemory:
    """The memory without chunks; what an earlier call gave is used up."""
    if isinstance(self._memory, HostMemory | DiskMemory):
      self._memory.clear()
    else:
      self._memory = make_memory(
        self._plan, folder=self._folder, placement=self._placement
      )
      if isinstance(self._memory, DiskMemory):
        self._memory.clear()  # of a run that was killed
    return self._memory
