import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from hsa_jax.config import OptimizerConfig, OptimizerName
from hsa_jax.models import LanguageModel
from hsa_jax.parallel import named_leaves
from hsa_jax.training.optimizer import decay_mask, make_optimizer

from .helpers import make_config


def test_only_matrices_of_the_model_decay():
  cfg = make_config().model
  model = jax.eval_shape(lambda: LanguageModel(cfg, rngs=nnx.Rngs(0)))
  mask = named_leaves(decay_mask(model))
  decaying = {name for name, decays in mask.items() if decays}
  assert decaying and all(name.endswith(".kernel") for name in decaying)
  others = mask.keys() - decaying
  assert {"embedding.embedding", "encoder.cls", "norm.scale"} <= others
  assert not any(name.endswith(".kernel") for name in others)


def test_decay_moves_matrices_and_nothing_else():
  params = {
    "a": {"kernel": jnp.ones((2, 3))},
    "norm": {"scale": jnp.ones((2, 3))},
  }
  cfg = OptimizerConfig(learning_rate=0.5, warmup_steps=1, weight_decay=0.2)
  tx = make_optimizer(cfg, num_steps=10)
  zero = jax.tree.map(jnp.zeros_like, params)
  updates, _ = tx.update(zero, tx.init(params), params)
  np.testing.assert_allclose(updates["a"]["kernel"], -0.1, rtol=1e-6)
  np.testing.assert_array_equal(updates["norm"]["scale"], 0.0)


def test_gradients_are_clipped_before_adam_sees_them():
  cfg = OptimizerConfig(clip_norm=1.0, warmup_steps=1)
  tx = make_optimizer(cfg, num_steps=10)
  params = {"w": jnp.zeros((4,))}
  states = [
    tx.update({"w": jnp.full((4,), size)}, tx.init(params), params)[1]
    for size in (10.0, 1000.0)
  ]
  moments = [named_leaves(state)["1.mu.w"] for state in states]
  np.testing.assert_allclose(moments[0], moments[1], rtol=1e-5)
  np.testing.assert_allclose(moments[0], 0.1 * 0.5, rtol=1e-5)


def muon(**fields):
  cfg = OptimizerConfig(name=OptimizerName.MUON, warmup_steps=1, **fields)
  return make_optimizer(cfg, num_steps=10)


def test_muon_levels_the_singular_values_of_every_layer_by_itself():
  rng = np.random.default_rng(0)
  spread = np.diag([1.0, 0.3, 0.1, 0.03])
  layers = np.stack([scale * rng.normal(size=(4, 4)) for scale in (1, 50)])
  layers = (layers @ spread).astype(np.float32)
  together = {"blocks": {"up": {"kernel": jnp.asarray(layers)}}}
  alone = {"blocks": {"up": {"kernel": jnp.asarray(layers[1])}}}
  tx = muon(muon_learning_rate=0.02, weight_decay=0.0, clip_norm=1e9)
  both, one = (
    tx.update(grads, tx.init(grads), grads)[0]["blocks"]["up"]["kernel"]
    for grads in (together, alone)
  )
  np.testing.assert_allclose(both[1], one, rtol=1e-4)
  for update, gradient in zip(both, layers, strict=True):
    size = np.linalg.svd(np.asarray(update), compute_uv=False) / 0.02
    assert 0.4 < size.min() and size.max() < 1.5
    assert np.linalg.cond(gradient) > 10
    assert np.sum(np.asarray(update) * gradient) < 0  # it descends


def test_muon_leaves_everything_but_matrices_to_adam():
  params = {
    "embedding": {"embedding": jnp.ones((3, 2))},
    "norm": {"scale": jnp.ones((2,))},
    "out": {"kernel": jnp.ones((2, 2))},
  }
  grads = jax.tree.map(lambda x: 0.1 * x, params)
  adam = optax.nadam(1e-3, b2=0.95)
  ours, theirs = (
    tx.update(grads, tx.init(params), params)[0]
    for tx in (muon(learning_rate=1e-3), adam)
  )
  for part in ("embedding", "norm"):
    jax.tree.map(np.testing.assert_allclose, ours[part], theirs[part])
  assert not np.allclose(ours["out"]["kernel"], theirs["out"]["kernel"])
