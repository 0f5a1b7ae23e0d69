import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from hsa_jax.config import OptimizerConfig
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
