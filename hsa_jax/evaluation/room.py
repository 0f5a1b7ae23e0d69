"""Where the chunks of a job live: planned first, then refilled per batch."""

import pathlib
from typing import Self

from hsa_jax.config import ModelConfig
from hsa_jax.evaluation.session import Session, Settings
from hsa_jax.memory import (
  ChunkMemory,
  DiskMemory,
  HostMemory,
  Plan,
  available,
  make_memory,
  plan_memory,
)

FOLDER = "memory"  # of the disk home, in the results folder


def plan_room(
  settings: Settings, model: ModelConfig, length: int, folder: pathlib.Path
) -> Plan:
  """The home for contexts of `length` tokens, and what it takes.

  Raises:
    MemoryHomeError: if the home asked for, or any, does not fit.
    ValueError: if that home cannot store `settings.kv_dtype`.
  """
  return plan_memory(
    model,
    length=length,
    batch=settings.batch,
    home=settings.memory,
    free=available(folder),
    kv_dtype=settings.kv_dtype,
  )


class Room:
  """A memory that is emptied and filled again; closed, it leaves no file."""

  def __init__(self, session: Session, length: int):
    """Plans for contexts of `length` tokens; takes the room when first used.

    Raises:
      MemoryHomeError: if they do not fit.
    """
    self._folder = session.results.path / FOLDER
    settings, model = session.settings, session.cfg.model
    self._plan = plan_room(settings, model, length, self._folder)
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
      self._memory = make_memory(self._plan, folder=self._folder)
      if isinstance(self._memory, DiskMemory):
        self._memory.clear()  # of a run that was killed
    return self._memory
