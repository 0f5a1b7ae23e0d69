"""The device mesh and how a batch is laid on it."""

import math
import os
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from hsa_jax.config import MeshConfig

AXES = ("data", "fsdp", "context", "tensor")
BATCH_AXES = ("data", "fsdp")  # a batch is split over both
READ_AXIS = "data"  # a long context, its segments and chunks, is split over it


def initialize_distributed() -> bool:
  """Joins the other processes of a job that has more than one.

  Does nothing unless `JAX_COORDINATOR_ADDRESS` is set (with
  `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`, unless the cluster tells them). A
  failure is raised, never swallowed: a pod must not turn into lone runs.

  Returns:
    Whether this process joined a group.
  """
  address = os.environ.get("JAX_COORDINATOR_ADDRESS")
  if not address:
    return False
  count = os.environ.get("JAX_NUM_PROCESSES")
  index = os.environ.get("JAX_PROCESS_ID")
  jax.distributed.initialize(
    address,
    num_processes=int(count) if count else None,
    process_id=int(index) if index else None,
  )
  return True


def mesh_shape(cfg: MeshConfig, num_devices: int) -> tuple[int, ...]:
  """Devices along `AXES`, with the `-1` axis resolved.

  Raises:
    ValueError: if the sizes do not multiply to `num_devices`.
  """
  sizes = [cfg.data, cfg.fsdp, cfg.context, cfg.tensor]
  fixed = math.prod(size for size in sizes if size != -1)
  left = num_devices // fixed
  shape = tuple(left if size == -1 else size for size in sizes)
  if math.prod(shape) != num_devices:
    text = " x ".join(f"{a}={s}" for a, s in zip(AXES, sizes, strict=True))
    raise ValueError(f"mesh {text} does not fit {num_devices} devices")
  return shape


def make_mesh(cfg: MeshConfig, *, devices: list[Any] | None = None) -> Mesh:
  """A mesh with the four axes, all of type Auto.

  Enter it with `jax.set_mesh(mesh)`; a bare `with mesh:` is not seen by
  sharding constraints.

  Args:
    cfg: sizes of the axes.
    devices: devices to use; None takes all of `jax.devices()`.

  Raises:
    ValueError: if the sizes do not multiply to the number of devices.
  """
  devices = jax.devices() if devices is None else devices
  shape = mesh_shape(cfg, len(devices))
  grid = mesh_utils.create_device_mesh(shape, devices=devices)
  return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def batch_sharding(mesh: Mesh, *, leading: int = 0) -> NamedSharding:
  """Rows split over data and fsdp; other dimensions whole.

  Args:
    mesh: the device mesh.
    leading: dimensions before the row dimension (1 for micro-batches).
  """
  return NamedSharding(mesh, P(*(None,) * leading, BATCH_AXES))


def place_batch(batch: Any, mesh: Mesh) -> Any:
  """Host arrays of this process's rows to one global array per leaf.

  Args:
    batch: pytree of numpy arrays, rows first. With several processes each
      holds its own share, and the leaves of the result are the whole batch.
    mesh: the device mesh.

  Returns:
    The same pytree of `jax.Array`, rows split over data and fsdp.
  """
  sharding = batch_sharding(mesh)

  def place(x: Any) -> jax.Array:
    return jax.make_array_from_process_local_data(sharding, np.asarray(x))

  return jax.tree.map(place, batch)
