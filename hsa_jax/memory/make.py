"""From a plan to a memory."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from typing import Any

from hsa_jax.memory.device import DeviceMemory
from hsa_jax.memory.disk import DiskMemory
from hsa_jax.memory.host import HostMemory
from hsa_jax.memory.plan import Home, Plan
from hsa_jax.memory.protocol import ChunkMemory
from hsa_jax.memory.sharded import Placement, make_sharded


def make_memory(
  plan: Plan,
  *,
  folder: str | os.PathLike[str] | None = None,
  identity: str = "",
  placement: Placement | None = None,
  **options: Any,
) -> ChunkMemory:
  """An empty memory with the room that was planned.

  Args:
    plan: from `plan_memory`.
    folder: of the disk home.
    identity: of model and context; see `DiskMemory`, which may come back with
      chunks.
    placement: devices of the sharded home.
    **options: of host and disk; see `StreamedMemory`.

  Raises:
    ValueError: without the folder or the placement that the home needs.
    MemoryHomeError: if the room is not there after all.
  """
  layout, chunks = plan.layout, plan.num_chunks
  if plan.home is Home.DEVICE:
    return DeviceMemory(chunks)
  if plan.home is Home.SHARDED:
    if placement is None:
      raise ValueError("home = sharded: a mesh axis must be given")
    return make_sharded(layout, chunks, placement)
  options["landmark_place"] = plan.landmark_place
  if plan.home is Home.HOST:
    return HostMemory(chunks, layout=layout, **options)
  if folder is None:
    raise ValueError("home = disk: a folder must be given")
  return DiskMemory(folder, chunks, layout=layout, identity=identity, **options)


@contextlib.contextmanager
def open_memory(
  plan: Plan,
  folder: str | os.PathLike[str],
  placement: Placement | None = None,
) -> Iterator[ChunkMemory]:
  """An empty memory for one context; its file, if any, is gone at the end.

  Args:
    plan: from `plan_memory`.
    folder: where the disk home makes a folder of its own.
    placement: devices of the sharded home.

  Raises:
    ValueError: without the placement that the sharded home needs.
    MemoryHomeError: if the room is not there after all.
  """
  if plan.home is not Home.DISK:
    yield make_memory(plan, placement=placement)
    return
  with tempfile.TemporaryDirectory(prefix="chunks-", dir=folder) as own:
    memory = make_memory(plan, folder=own)
    assert isinstance(memory, DiskMemory)
    with contextlib.closing(memory):
      yield memory
