import dataclasses

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

from hsa_jax.config import ConfigError, MeshConfig
from hsa_jax.parallel import (
  AXES,
  batch_sharding,
  describe_mesh,
  enable_compilation_cache,
  local_parts,
  local_rows,
  make_mesh,
  mesh_shape,
  place_batch,
  slice_shape,
)


@pytest.mark.parametrize(
  ("cfg", "devices", "shape"),
  [
    (MeshConfig(), 1, (1, 1, 1, 1)),
    (MeshConfig(), 8, (8, 1, 1, 1)),
    (MeshConfig(fsdp=4), 8, (2, 4, 1, 1)),
    (MeshConfig(data=2, fsdp=-1, tensor=2), 16, (2, 4, 1, 2)),
    (MeshConfig(data=2, fsdp=2, context=1, tensor=2), 8, (2, 2, 1, 2)),
  ],
)
def test_shape(cfg, devices, shape):
  assert mesh_shape(cfg, devices) == shape


@pytest.mark.parametrize(
  ("cfg", "devices"), [(MeshConfig(fsdp=3), 8), (MeshConfig(data=2), 8)]
)
def test_sizes_that_do_not_fit(cfg, devices):
  with pytest.raises(ValueError, match=f"does not fit {devices} devices"):
    mesh_shape(cfg, devices)


def test_mesh_has_four_auto_axes():
  mesh = make_mesh(MeshConfig(), devices=jax.devices()[:1])
  assert mesh.axis_names == AXES
  assert mesh.axis_types == (AxisType.Auto,) * 4


def test_placed_batch_is_global_and_unchanged():
  mesh = make_mesh(MeshConfig(), devices=jax.devices()[:1])
  batch = {"tokens": np.arange(12, dtype=np.int32).reshape(4, 3)}
  placed = place_batch(batch, mesh)
  np.testing.assert_array_equal(placed["tokens"], batch["tokens"])
  assert placed["tokens"].sharding.spec[0] == ("data", "fsdp")


def test_cache_folder_that_cannot_be_made_is_no_reason_to_stop(tmp_path):
  (tmp_path / "file").write_text("")
  before = jax.config.jax_compilation_cache_dir
  assert enable_compilation_cache(str(tmp_path / "file" / "cache")) == ""
  assert jax.config.jax_compilation_cache_dir == before


@dataclasses.dataclass(frozen=True)
class FakeChip:
  """One TPU v5e chip as `mesh_utils` looks at it."""

  id: int
  coords: tuple[int, int, int]
  slice_index: int
  process_index: int
  platform: str = "tpu"
  device_kind: str = "TPU v5 lite"
  core_on_chip: int = 0


def slices(count: int, side: int) -> list[FakeChip]:
  """Square slices of `side` x `side` chips, hosts of 2 x 2."""
  hosts = side // 2
  return [
    FakeChip(
      id=(s * side + x) * side + y,
      coords=(x, y, 0),
      slice_index=s,
      process_index=(s * hosts + x // 2) * hosts + y // 2,
    )
    for s in range(count)
    for x in range(side)
    for y in range(side)
  ]


@pytest.mark.parametrize(
  ("cfg", "fix"),
  [
    (MeshConfig(fsdp=3), "nearest: mesh.fsdp = 2"),
    (MeshConfig(tensor=16), "nearest: mesh.tensor = 8"),
    (MeshConfig(data=2), "nearest: mesh.data = 8"),
    (MeshConfig(data=2, fsdp=2, tensor=4), "nearest: mesh.data = 1"),
    (MeshConfig(data=3, fsdp=5), "set one axis to -1"),
  ],
)
def test_a_mesh_that_does_not_fit_names_the_nearest_that_does(cfg, fix):
  with pytest.raises(ConfigError, match="does not fit 8 devices; .*" + fix):
    mesh_shape(cfg, 8)


@pytest.mark.parametrize(
  ("shape", "count", "inner", "outer"),
  [
    ((8, 1, 1, 1), 2, (4, 1, 1, 1), (2, 1, 1, 1)),
    ((2, 16, 1, 1), 2, (1, 16, 1, 1), (2, 1, 1, 1)),
    ((1, 32, 1, 1), 2, (1, 16, 1, 1), (1, 2, 1, 1)),
    ((2, 8, 1, 4), 4, (1, 4, 1, 4), (2, 2, 1, 1)),
    ((6, 4, 2, 1), 12, (1, 2, 2, 1), (6, 2, 1, 1)),
  ],
)
def test_slices_go_to_data_then_fsdp(shape, count, inner, outer):
  assert slice_shape(shape, count) == (inner, outer)
  assert tuple(np.multiply(inner, outer)) == shape


@pytest.mark.parametrize("shape", [(1, 1, 1, 32), (1, 3, 1, 4), (3, 1, 4, 1)])
def test_slices_that_only_tensor_could_cross_are_refused(shape):
  with pytest.raises(
    ConfigError, match="over 2 slices: set mesh.data to a mul"
  ):
    slice_shape(shape, 2)


def test_only_data_leaves_its_slice():
  mesh = make_mesh(MeshConfig(data=4, fsdp=4, tensor=2), devices=slices(2, 4))
  of = np.vectorize(lambda device: device.slice_index)(mesh.devices)
  assert mesh.devices.shape == (4, 4, 1, 2)
  assert (of[:2] == 0).all() and (of[2:] == 1).all()
  assert len({d.id for d in mesh.devices.flat}) == 32
  text = describe_mesh(mesh).splitlines()
  assert text[0] == (
    "mesh data=4 x fsdp=4 x context=1 x tensor=2 on 32 devices (TPU v5 lite),"
    " 8 processes, 2 slices"
  )
  assert (
    text[1] == "  data        4  across slices, over the data-centre network"
  )
  assert [line.split()[0] for line in text[1:]] == ["data", "fsdp", "tensor"]


@pytest.mark.parametrize(
  "cfg", [MeshConfig(1, 8, 1, 2), MeshConfig(2, 2, 2, 2), MeshConfig(16)]
)
def test_any_sizes_lie_on_a_torus(cfg):
  """(1, 8, 1, 2) divides no single dimension of 4 x 4."""
  mesh = make_mesh(cfg, devices=slices(1, 4))
  assert {device.id for device in mesh.devices.flat} == set(range(16))
  assert tuple(mesh.shape.values()) == (
    cfg.data,
    cfg.fsdp,
    cfg.context,
    cfg.tensor,
  )


def test_slices_of_different_sizes_are_refused():
  with pytest.raises(ConfigError, match="slice 0: 16, slice 1: 4"):
    make_mesh(MeshConfig(), devices=[*slices(2, 4)[:16], *slices(2, 2)[4:]])


@pytest.mark.parametrize(
  ("cfg", "sharing"),
  [
    (MeshConfig(16), 1),
    (MeshConfig(4, 4), 1),
    (MeshConfig(2, 4, 2, 1), 1),
    (MeshConfig(2, 1, 8, 1), 2),
    (MeshConfig(1, 1, 2, 8), 4),
    (MeshConfig(1, 2, 4, 2), 2),
  ],
)
def test_processes_read_every_row_of_their_devices(cfg, sharing):
  """Four hosts of 2 x 2 chips; a row on several is read by each of them."""
  mesh = make_mesh(cfg, devices=slices(1, 4))
  num_rows = 16
  read = [local_rows(mesh, num_rows, process=p) for p in range(4)]
  counts = np.bincount(np.concatenate(read), minlength=num_rows)
  assert (counts == sharing).all()
  index = batch_sharding(mesh).devices_indices_map((num_rows,))
  for device, (rows,) in index.items():
    mine = set(read[device.process_index].tolist())
    assert set(range(num_rows)[rows]) <= mine


def test_parts_of_a_host_need_not_be_neighbours():
  """A ring through a torus leaves a host and comes back."""
  devices = sorted(slices(1, 4), key=lambda d: (d.id % 2, d.process_index))
  mesh = Mesh(np.asarray(devices).reshape(16, 1, 1, 1), AXES)
  assert [local_parts(mesh, process=p) for p in (0, 3)] == [
    [0, 1, 8, 9],
    [6, 7, 14, 15],
  ]
  assert local_rows(mesh, 32, process=0).tolist() == [
    0,
    1,
    2,
    3,
    16,
    17,
    18,
    19,
  ]
