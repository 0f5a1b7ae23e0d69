import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from hsa_jax.config import MeshConfig
from hsa_jax.data.pipeline import Batch
from hsa_jax.parallel import make_mesh
from hsa_jax.training.optimizer import make_optimizer
from hsa_jax.training.state import TrainState, abstract_state, init_state
from hsa_jax.training.step import eval_step, limits_at, make_train_step
from hsa_jax.training.token_hash import token_hash

from .helpers import VOCAB, Bigram, make_config


def make_batch(rows: int = 4, length: int = 12, seed: int = 0) -> Batch:
  rng = np.random.default_rng(seed)
  tokens = rng.integers(0, VOCAB, (rows, length + 1)).astype(np.int32)
  weights = (rng.random((rows, length)) < 0.8).astype(np.float32)
  answers = (rng.random((rows, length)) < 0.3).astype(np.float32)
  answers[1] = 0  # Micro-batches with and without answers.
  arrays = (tokens[:, :-1], tokens[:, 1:], weights, answers)
  return Batch(*map(jnp.asarray, arrays))


def build(rngs: nnx.Rngs) -> Bigram:
  return Bigram(rngs=rngs)


def one_step(cfg, batch, tx=None):
  mesh = make_mesh(MeshConfig())
  tx = tx or make_optimizer(cfg.optimizer, num_steps=cfg.num_steps)
  abstract = abstract_state(build, tx, mesh=mesh)
  with jax.set_mesh(mesh):
    state = init_state(build, tx, seed=0, abstract=abstract)
    return jax.jit(make_train_step(cfg, tx, mesh=mesh))(state, batch)


def by_hand(model, batch):
  logits = np.asarray(model(batch.tokens, limits=None), np.float64)
  shifted = logits - logits.max(-1, keepdims=True)
  log_p = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
  return -np.take_along_axis(log_p, np.asarray(batch.targets)[..., None], -1)[
    ..., 0
  ]


def test_metrics_are_those_of_the_model_before_the_step():
  batch, cfg = make_batch(), make_config()
  _, metrics = one_step(cfg, batch)
  model = jax.jit(lambda: build(nnx.Rngs(0)))()
  nll = by_hand(model, batch)
  weights, answers = np.asarray(batch.weights), np.asarray(batch.answers)
  loss = (nll * weights).sum() / weights.sum()
  assert float(metrics.loss_nats) == pytest.approx(loss, rel=1e-5)
  answer = (nll * answers).sum() / answers.sum()
  assert float(metrics.answer_loss_nats) == pytest.approx(answer, rel=1e-5)
  assert float(metrics.answer_tokens) == answers.sum()
  sums = eval_step(model, batch)
  assert float(sums[0] / sums[1]) == pytest.approx(loss, rel=1e-5)


def test_answer_accuracy_counts_answers_only():
  class Parrot(nnx.Module):
    def __init__(self, *, rngs):
      self.output = nnx.Param(10.0 * jnp.eye(VOCAB))

    def __call__(self, tokens, *, limits, noise_key=None):
      return self.output[...][tokens]

  tokens = jnp.asarray([[5, 5, 7, 7]])
  answers = jnp.asarray([[1.0, 1.0, 1.0, 0.0]])
  targets = jnp.asarray([[5, 7, 7, 1]])
  batch = Batch(tokens, targets, jnp.ones((1, 4)), answers)
  mesh = make_mesh(MeshConfig())
  cfg, tx = make_config(), optax.sgd(0.0)
  model = Parrot(rngs=nnx.Rngs(0))
  state = TrainState(model, tx.init(model), jnp.zeros((), jnp.int32))
  with jax.set_mesh(mesh):
    _, metrics = jax.jit(make_train_step(cfg, tx, mesh=mesh))(state, batch)
  assert float(metrics.answer_accuracy) == pytest.approx(2 / 3)


def test_answer_weight_changes_the_gradient():
  batch = make_batch()
  norms = [
    float(one_step(make_config(answer_loss_weight=w), batch)[1].grad_norm)
    for w in (0.0, 2.0)
  ]
  assert abs(norms[0] - norms[1]) > 1e-2


@pytest.mark.parametrize("parts", [2, 4])
def test_accumulation_equals_one_batch(parts):
  batch, tx = make_batch(), optax.sgd(1.0)
  whole, metrics = one_step(make_config(), batch, tx)
  split, split_metrics = one_step(
    make_config(grad_accum_steps=parts), batch, tx
  )
  for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(split), strict=True):
    np.testing.assert_allclose(a, b, atol=2e-6)
  for a, b in zip(
    jax.tree.leaves(metrics), jax.tree.leaves(split_metrics), strict=True
  ):
    np.testing.assert_allclose(a, b, rtol=1e-5)


def test_batch_without_answers_stays_finite():
  batch = make_batch()
  batch = batch._replace(answers=jnp.zeros_like(batch.answers))
  state, metrics = one_step(make_config(), batch)
  assert float(metrics.answer_loss_nats) == 0.0
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(state))


def test_the_hash_knows_ids_and_places():
  """Not the mesh, which the step test on several devices has."""
  tokens = np.asarray(make_batch().tokens)
  hashed = jax.jit(token_hash)
  own = int(hashed(tokens))
  assert own == int(hashed(tokens.copy())) == int(token_hash(tokens))
  swapped = tokens.copy()
  swapped[0], swapped[1] = tokens[1], tokens[0]
  changed = tokens.copy()
  changed[-1, -1] ^= 1
  others = [swapped, changed, tokens[:, ::-1], tokens.T, tokens * 0]
  found = {own, *(int(hashed(np.ascontiguousarray(x))) for x in others)}
  assert len(found) == 6
  assert int(one_step(make_config(), make_batch())[1].token_hash) == own


def test_limits_follow_their_schedules():
  cfg = make_config(top_k_schedule=((0, 1), (5, 2)))
  at = jax.jit(lambda step: limits_at(cfg.train, step))
  assert [int(at(step).top_k) for step in (0, 4, 5)] == [1, 1, 2]
  assert at(0).window is None


def test_learning_lowers_the_loss():
  cfg = make_config()
  mesh, batch = make_mesh(MeshConfig()), make_batch()
  tx = make_optimizer(cfg.optimizer, num_steps=cfg.num_steps)
  with jax.set_mesh(mesh):
    abstract = abstract_state(build, tx, mesh=mesh)
    state = init_state(build, tx, seed=0, abstract=abstract)
    step = jax.jit(make_train_step(cfg, tx, mesh=mesh), donate_argnums=0)
    losses = []
    for _ in range(12):
      state, metrics = step(state, batch)
      losses.append(float(metrics.loss_nats))
  assert int(state.step) == 12
  assert losses[-1] < losses[0] - 0.5
