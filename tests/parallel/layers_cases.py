"""Layers of every kind on eight devices; run by `layers_test.py`."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from hsa_jax.config import (
  BlockForm,
  Config,
  DataConfig,
  InitialState,
  InitialStateConfig,
  MeshConfig,
  Norm,
  OptimizerConfig,
  Remat,
  Residual,
  StageConfig,
  TrainConfig,
)
from hsa_jax.data.pipeline import Batch
from hsa_jax.models import LanguageModel
from hsa_jax.ops.full import full_attention
from hsa_jax.ops.stick import stick_breaking_attention
from hsa_jax.parallel import (
  make_mesh,
  named_leaves,
  place_batch,
  sharding_table,
)
from hsa_jax.training.initial import empty_kept
from hsa_jax.training.optimizer import make_optimizer
from hsa_jax.training.state import abstract_state, init_state
from hsa_jax.training.step import make_train_step
from tests.models.helpers import FULL, GLA, LOCAL, MAMBA, NOPE, STICK, tiny
from tests.parallel.context_cases import (
  MESHES,
  assert_same,
  loss_and_gradients,
)

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
  compare(name, [(2, 2, 1, 2)])


def test_more_devices_than_key_heads():
  compare("hybrid", [(1, 2, 1, 4)])


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_mesh_computes_what_one_device_does(name):
  # Full and recurrent layers refuse a row that is split over devices.
  compare(name, [sizes for sizes in MESHES if sizes[2] == 1])


def compare(name, meshes):
  want = loss_and_gradients(MODELS[name], (1, 1, 1, 1))
  for sizes in meshes:
    got = loss_and_gradients(MODELS[name], sizes)
    assert_same(got, want, f"{name} {sizes}")


@pytest.mark.parametrize("sizes", [(2, 2, 1, 2), (1, 8, 1, 1), (1, 1, 1, 8)])
def test_large_parameters_lie_where_the_table_says(sizes):
  cfg = tiny(
    embed_dim=512, mlp_dim=1024, hsa_encoder_mlp_dim=1024, vocab_size=1024
  )
  mesh = make_mesh(MeshConfig(*sizes))
  tx = make_optimizer(OptimizerConfig(), num_steps=1)

  def build(rngs):
    return LanguageModel(cfg, rngs=rngs)

  abstract = abstract_state(build, tx, mesh=mesh)
  with jax.set_mesh(mesh):
    state = init_state(build, tx, seed=0, abstract=abstract)
  large = 0
  for tree in (state.model, state.opt_state):
    leaves = named_leaves({"tree": tree})
    rows = {row.name: row for row in sharding_table({"tree": tree}, mesh)}
    for name, leaf in leaves.items():
      here = leaf.addressable_shards[0].data.nbytes
      assert here == rows[name].bytes_per_device, name
      if leaf.nbytes > 1_000_000:
        large += 1
        assert here < leaf.nbytes, f"{name} is whole on every device"
  assert large > 10


def two_steps(sizes):
  """State passing on a mesh: losses, and what the second step leaves."""
  model = tiny(layers=(GLA, LOCAL), hsa_num_groups=0)
  stage = StageConfig(num_steps=2, seq_len=12, batch_size=8)
  passing = InitialStateConfig(mode=InitialState.STATE_PASSING, segments=2)
  cfg = Config(
    model=model,
    data=DataConfig(stages=(stage,)),
    train=TrainConfig(initial_state=passing, grad_accum_steps=2),
    optimizer=OptimizerConfig(warmup_steps=0),
  )
  count = math.prod(sizes)
  mesh = make_mesh(MeshConfig(*sizes), devices=jax.devices()[:count])
  tx = make_optimizer(cfg.optimizer, num_steps=2)

  def build(rngs):
    return LanguageModel(model, rngs=rngs)

  abstract = abstract_state(build, tx, mesh=mesh, kept=empty_kept(cfg))
  rows = np.random.default_rng(1).integers(0, 40, (2, 8, 13), np.int32)
  ones, losses = np.ones((8, 12), np.float32), []
  with jax.set_mesh(mesh):
    state = init_state(build, tx, seed=0, abstract=abstract)
    run = jax.jit(make_train_step(cfg, tx, mesh=mesh))
    for row in rows:
      batch = Batch(row[:, :-1], row[:, 1:], ones, 0 * ones)
      state, metrics = run(state, Batch(*place_batch(tuple(batch), mesh)))
      losses.append(float(metrics.loss_nats))
  memory = abstract.kept.states.lower[0].memory
  return losses, jax.device_get(state.kept), memory.sharding.spec


def test_states_are_passed_on_any_mesh():
  want, kept, _ = two_steps((1, 1, 1, 1))
  got, others, spec = two_steps((2, 2, 1, 2))
  assert spec == P(("data", "fsdp"), None, None, "tensor", None, None)
  np.testing.assert_allclose(got, want, rtol=1e-5)
  pairs = zip(jax.tree.leaves(kept), jax.tree.leaves(others), strict=True)
  for one, other in pairs:
    assert np.abs(one).max() > 1e-4
    np.testing.assert_allclose(other, one, atol=1e-4)


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
