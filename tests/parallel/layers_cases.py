"""Layers of every kind on eight devices; run by `layers_test.py`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from hsa_jax.config import BlockForm, MeshConfig, Norm, Remat, Residual
from hsa_jax.ops.full import full_attention
from hsa_jax.ops.stick import stick_breaking_attention
from hsa_jax.parallel import make_mesh
from tests.models.helpers import FULL, GLA, LOCAL, MAMBA, NOPE, STICK, tiny
from tests.parallel.context_cases import loss_and_gradients

MODELS = {
  "full": tiny(layers=(FULL,), hsa_num_groups=0, remat=Remat.BLOCK),
  "hybrid": tiny(layers=(LOCAL, NOPE, STICK), hsa_num_groups=0),
  "above the memory": tiny(layers=(LOCAL, LOCAL, STICK)),
  "side by side": tiny(
    layers=(LOCAL, NOPE),
    hsa_num_groups=0,
    block=BlockForm.PARALLEL,
    norm=Norm.LAYER,
    logit_scale=0.25,
  ),
  "mamba2, gla": tiny(layers=(MAMBA, GLA), hsa_num_groups=0),
  "ramba": tiny(layers=(MAMBA,), hsa_residual=Residual.PLAIN),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_mesh_computes_what_one_device_does(name):
  want_loss, want = loss_and_gradients(MODELS[name], (1, 1, 1, 1))
  # Two key heads, so `tensor` splits them on one mesh and not on the other.
  for sizes in ((2, 2, 1, 2), (1, 2, 1, 4)):
    got_loss, got = loss_and_gradients(MODELS[name], sizes)
    np.testing.assert_allclose(got_loss, want_loss, atol=1e-5)
    leaves = jax.tree_util.tree_leaves_with_path(want)
    assert any(np.abs(leaf).max() > 1e-3 for _, leaf in leaves)
    for (path, leaf), other in zip(leaves, jax.tree.leaves(got), strict=True):
      label = f"{name} {sizes} {jax.tree_util.keystr(path)}"
      np.testing.assert_allclose(other, leaf, atol=1e-5, err_msg=label)


@pytest.mark.parametrize("op", [full_attention, stick_breaking_attention])
def test_rows_and_heads_stay_where_they_are(op):
  """The compiled loops over blocks talk to no other device."""
  mesh = make_mesh(MeshConfig(2, 2, 1, 2))
  split = NamedSharding(mesh, P(("data", "fsdp"), None, "tensor"))
  shape = jax.ShapeDtypeStruct((4, 600, 2, 8), jnp.float32, sharding=split)
  with jax.set_mesh(mesh):
    gradient = jax.grad(lambda *x: op(*x).sum(), argnums=(0, 1, 2))
    text = jax.jit(gradient).lower(shape, shape, shape).compile().as_text()
  assert "while" in text
  words = ("all-gather", "all-reduce", "all-to-all", "collective-permute")
  alone = "replica_groups={{0},{1},{2},{3},{4},{5},{6},{7}}"
  # Sums over `context`, which has one device, stay as sums over one.
  for line in text.splitlines():
    assert alone in line or not any(f" {word}(" in line for word in words)
