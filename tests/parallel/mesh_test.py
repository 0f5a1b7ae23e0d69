import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from hsa_jax.config import MeshConfig
from hsa_jax.parallel import (
  AXES,
  enable_compilation_cache,
  make_mesh,
  mesh_shape,
  place_batch,
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
