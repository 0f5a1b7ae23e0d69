"""The device mesh and how a batch is laid on it."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Int

from hsa_jax.config import ConfigError, MeshConfig

# From the axis that communicates least to the one that communicates most: the
# first are laid over the slower network.
AXES = ("data", "fsdp", "context", "tensor")
BATCH_AXES = ("data", "fsdp")  # a batch is split over both
CONTEXT_AXIS = "context"  # the tokens of a row are split over it
READ_AXIS = "data"  # a long context, its segments and chunks, is split over it
SLICE_AXES = ("data", "fsdp")  # may cross the network between slices


def mesh_shape(cfg: MeshConfig, num_devices: int) -> tuple[int, ...]:
  """Devices along `AXES`, with the `-1` axis resolved.

  Raises:
    ConfigError: if the sizes do not multiply to `num_devices`; names the field
      to change and a size that fits.
  """
  sizes: dict[str, int] = dict(
    zip(AXES, (cfg.data, cfg.fsdp, cfg.context, cfg.tensor), strict=True)
  )
  fixed = math.prod(size for size in sizes.values() if size != -1)
  left = num_devices // fixed
  shape = tuple(left if size == -1 else size for size in sizes.values())
  if math.prod(shape) != num_devices:
    text = " x ".join(f"{a}={s}" for a, s in sizes.items())
    fix = _fix(sizes, num_devices)
    raise ConfigError(
      [f"mesh {text} does not fit {num_devices} devices; {fix}"]
    )
  return shape


def _fix(sizes: dict[str, int], num_devices: int) -> str:
  """The change of one field that makes the sizes fit, where there is one."""
  has_free = -1 in sizes.values()
  changes = []
  for axis, size in sizes.items():
    rest = math.prod(s for a, s in sizes.items() if a != axis and s != -1)
    # With a free axis, those at 1 are not what is wrong.
    if size == -1 or (has_free and size == 1) or num_devices % rest:
      continue
    most = num_devices // rest
    fitting = [n for n in range(1, most + 1) if has_free and most % n == 0]
    best = min(fitting or [most], key=lambda n: abs(n - size))
    changes.append((abs(best - size) if has_free else 0, axis, best))
  if not changes:
    return "set one axis to -1 and the others to 1"
  _, axis, best = min(changes, key=lambda change: change[0])
  return f"nearest: mesh.{axis} = {best}"


def slice_shape(
  shape: tuple[int, ...], num_slices: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
  """How a mesh is laid over slices: inside one, and across them.

  Slices are shared out over `data` first, since gradients cross once a step;
  what `data` cannot take goes to `fsdp`. No other axis leaves a slice.

  Args:
    shape: devices along `AXES`, in all.
    num_slices: groups of devices that a slower network joins.

  Returns:
    Two tuples along `AXES`, whose products are the devices of a slice and the
    number of slices; their elementwise product is `shape`.

  Raises:
    ConfigError: if the slices do not divide data x fsdp.
  """
  inner, outer, left = list(shape), [1] * len(shape), num_slices
  for i, axis in enumerate(AXES):
    if axis in SLICE_AXES:
      outer[i] = math.gcd(shape[i], left)
      inner[i] //= outer[i]
      left //= outer[i]
  if left > 1:
    text = " x ".join(f"{a}={s}" for a, s in zip(AXES, shape, strict=True))
    raise ConfigError(
      [
        f"mesh {text} does not divide over {num_slices} slices: set mesh.data"
        f" to a multiple of {num_slices}; context and tensor stay inside a"
        " slice"
      ]
    )
  return tuple(inner), tuple(outer)


def make_mesh(cfg: MeshConfig, *, devices: Sequence[Any] | None = None) -> Mesh:
  """A mesh with the four axes, all of type Auto.

  Enter it with `jax.set_mesh(mesh)`; a bare `with mesh:` is not seen by
  sharding constraints. Any sizes that multiply to the number of devices are
  laid on a TPU's torus, splitting one of its dimensions where they must.

  Args:
    cfg: sizes of the axes.
    devices: devices to use; None takes all of `jax.devices()`. Those of several
      TPU slices are told by their `slice_index`.

  Raises:
    ConfigError: if the sizes do not multiply to the number of devices, or do
      not divide over the slices.
  """
  devices = list(jax.devices() if devices is None else devices)
  shape = mesh_shape(cfg, len(devices))
  count = num_slices(devices)
  if count > 1:
    inner, outer = slice_shape(shape, count)
    grid = mesh_utils.create_hybrid_device_mesh(
      inner, outer, devices, allow_split_physical_axes=True
    )
  else:
    grid = mesh_utils.create_device_mesh(
      shape, devices, allow_split_physical_axes=True
    )
  return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def num_slices(devices: Sequence[Any]) -> int:
  """Groups of TPU devices that a slower network joins; 1 elsewhere.

  Raises:
    ConfigError: for slices of different sizes, which no mesh fits.
  """
  if devices[0].platform != "tpu":
    return 1
  # Where there is one slice, its devices need not number it.
  sizes = Counter(getattr(device, "slice_index", 0) for device in devices)
  if len(set(sizes.values())) > 1:
    text = ", ".join(f"slice {i}: {n}" for i, n in sorted(sizes.items()))
    raise ConfigError(
      [f"mesh: slices must have equally many devices, got {text}"]
    )
  return len(sizes)


def describe_mesh(mesh: Mesh) -> str:
  """Axes and the network that each crosses, one line per axis above one."""
  devices = mesh.devices
  sizes = " x ".join(f"{axis}={n}" for axis, n in mesh.shape.items())
  hosts = len({device.process_index for device in devices.flat})
  parts = [f"{devices.size} devices ({devices.flat[0].device_kind})"]
  parts += [f"{hosts} processes"] * (hosts > 1)
  slices = num_slices(list(devices.flat))
  parts += [f"{slices} slices"] * (slices > 1)
  lines = [f"mesh {sizes} on {', '.join(parts)}"]
  for i, axis in enumerate(mesh.axis_names):
    if devices.shape[i] > 1:
      reach = _reach(np.moveaxis(devices, i, 0), slices)
      lines.append(f"  {axis:7} {devices.shape[i]:5}  {reach}")
  return "\n".join(lines)


def _reach(devices: np.ndarray, slices: int) -> str:
  """What a step along the first axis crosses, at its worst."""
  if slices > 1 and _changes(devices, "slice_index"):
    return "across slices, over the data-centre network"
  if _changes(devices, "process_index"):
    return "across hosts"
  return "inside each host"


def _changes(devices: np.ndarray, attribute: str) -> bool:
  values = np.vectorize(lambda device: getattr(device, attribute))(devices)
  return bool((values != values[:1]).any())


def batch_sharding(mesh: Mesh, *, leading: int = 0) -> NamedSharding:
  """Rows split over data and fsdp; other dimensions whole.

  Args:
    mesh: the device mesh.
    leading: dimensions before the row dimension (1 for micro-batches).
  """
  return NamedSharding(mesh, P(*(None,) * leading, BATCH_AXES))


def local_parts(mesh: Mesh, process: int | None = None) -> list[int]:
  """Which of the `data * fsdp` parts of a batch a process must read.

  Processes that share a row, because `context` or `tensor` reaches over them,
  read the same parts. On a torus the parts of a host need not be neighbours.

  Args:
    mesh: the device mesh.
    process: its index; None: this one.

  Returns:
    Numbers of the parts, ascending.
  """
  process = jax.process_index() if process is None else process
  owners = np.vectorize(lambda device: device.process_index)(mesh.devices)
  owners = owners.reshape(owners.shape[0] * owners.shape[1], -1)
  return np.flatnonzero((owners == process).any(axis=1)).tolist()


def local_rows(
  mesh: Mesh, num_rows: int, process: int | None = None
) -> Int[np.ndarray, " R"]:
  """Numbers of the rows of a batch that a process must read, ascending.

  Args:
    mesh: the device mesh.
    num_rows: of the whole batch; `data * fsdp` divides it.
    process: its index; None: this one.
  """
  parts = np.asarray(local_parts(mesh, process), np.int64)
  size = num_rows // _num_parts(mesh)
  return (parts[:, None] * size + np.arange(size)).reshape(-1)


def place_batch(batch: Any, mesh: Mesh) -> Any:
  """Host arrays of this process's rows to one global array per leaf.

  Args:
    batch: pytree of numpy arrays, rows first: all of them, or with several
      processes those of `local_rows`, in that order.
    mesh: the device mesh.

  Returns:
    The same pytree of `jax.Array`, rows split over data and fsdp.
  """
  sharding = batch_sharding(mesh)
  if sharding.is_fully_addressable:
    return jax.device_put(batch, sharding)
  own = len(local_parts(mesh))

  def place(x: Any) -> jax.Array:
    x = np.asarray(x)
    num_rows = len(x) // own * _num_parts(mesh)
    numbers = local_rows(mesh, num_rows)

    def part(index: Any) -> np.ndarray:
      start, stop, _ = index[0].indices(num_rows)
      first = int(np.searchsorted(numbers, start))
      return x[first : first + stop - start]

    shape = (num_rows, *x.shape[1:])
    return jax.make_array_from_callback(shape, sharding, part)

  return jax.tree.map(place, batch)


def _num_parts(mesh: Mesh) -> int:
  return mesh.shape[BATCH_AXES[0]] * mesh.shape[BATCH_AXES[1]]
