"""Muon on four devices; `muon_test.py` runs this file where there are four."""

import contextlib
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
from jax.sharding import AxisType

from hsa_jax.config import OptimizerConfig, OptimizerName
from hsa_jax.training import muon as muon_lib
from hsa_jax.training import schedule
from hsa_jax.training.optimizer import decay_mask, make_optimizer


def library_muon(cfg):
  """What `make_optimizer` must equal, each matrix where it lives."""
  axes = optax.contrib.MuonDimensionNumbers(reduction_axis=-2, output_axis=-1)
  muon = optax.contrib.muon(
    schedule.learning_rate(
      dataclasses.replace(cfg, learning_rate=cfg.muon_learning_rate), 10
    ),
    adam_learning_rate=schedule.learning_rate(cfg, 10),
    adam_b1=cfg.b1,
    adam_b2=cfg.b2,
    eps=cfg.eps,
    weight_decay=cfg.weight_decay,
    muon_weight_dimension_numbers=lambda params: jax.tree.map(
      lambda own: axes if own else None, decay_mask(params)
    ),
  )
  return optax.chain(optax.clip_by_global_norm(cfg.clip_norm), muon)


@pytest.mark.parametrize("devices", [0, 1, 3])
def test_muon_shared_by_devices_equals_the_library(devices):
  # Shapes alone, in stacks, tall and wide; 5 matrices do not divide by 3.
  shapes = {
    "a": {"kernel": (2, 6, 4)},
    "b": {"kernel": (4, 6)},
    "c": {"kernel": (6, 4)},
    "d": {"kernel": (2, 1, 6, 4)},
    "norm": {"scale": (4,)},
  }
  rng = np.random.default_rng(0)

  def draw():
    return jax.tree.map(
      lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32),
      shapes,
      is_leaf=lambda x: isinstance(x, tuple),
    )

  cfg = OptimizerConfig(name=OptimizerName.MUON, warmup_steps=1)
  ours, theirs = make_optimizer(cfg, num_steps=10), library_muon(cfg)
  params, grads = draw(), [draw() for _ in range(3)]
  mesh = contextlib.nullcontext()
  if devices:
    mesh = jax.set_mesh(
      jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,))
    )
  with mesh:
    got, want = ours.init(params), theirs.init(params)
    for step in grads:
      mine, got = jax.jit(ours.update)(step, got, params)
      other, want = jax.jit(theirs.update)(step, want, params)
      jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-4, atol=1e-6),
        mine,
        other,
      )


def test_devices_orthogonalise_different_matrices():
  mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
  whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  tree = {
    name: jax.ShapeDtypeStruct((2, 64, 64), jnp.float32, sharding=whole)
    for name in "ab"
  }
  with jax.set_mesh(mesh):
    program = jax.jit(muon_lib.orthogonalize).lower(tree).compile()
  cost = program.cost_analysis()
  # Five iterations of three products on one matrix, not on all four.
  assert cost is not None
  assert 15 * 2 * 64**3 <= cost["flops"] < 1.5 * 15 * 2 * 64**3
