"""One optimizer step and one validation step, as pure functions to jit."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Float, UInt32

from hsa_jax.config import Config, Noise, TrainConfig
from hsa_jax.data.pipeline import Batch
from hsa_jax.ops import loss as loss_lib
from hsa_jax.parallel import batch_sharding
from hsa_jax.training import initial, schedule
from hsa_jax.training.guard import GuardReading, read_guard
from hsa_jax.training.state import TrainState
from hsa_jax.training.token_hash import token_hash
from hsa_jax.types import Limits, RowStates


class StepMetrics(NamedTuple):
  """What one optimizer step reports; device scalars until they are read.

  Attributes:
    loss_nats: mean negative log-likelihood of the language-model targets.
    answer_loss_nats: the same over answer tokens; 0 where there are none.
    answer_accuracy: share of answer tokens ranked first, ties included.
    answer_tokens: number of answer tokens in the batch.
    grad_norm: global norm before clipping.
    learning_rate: used in this step.
    update_norm: global norm of what was added to the parameters.
    token_hash: of the batch; see `token_hash`.
    guard: what the guard of the optimizer thought; None without one.
  """

  loss_nats: Float[Array, ""]
  answer_loss_nats: Float[Array, ""]
  answer_accuracy: Float[Array, ""]
  answer_tokens: Float[Array, ""]
  grad_norm: Float[Array, ""]
  learning_rate: Float[Array, ""]
  update_norm: Float[Array, ""]
  token_hash: UInt32[Array, ""]
  guard: GuardReading | None = None


class Sums(NamedTuple):
  """Sums over tokens, so that micro-batches add up exactly."""

  nll: Float[Array, ""]
  answer_nll: Float[Array, ""]
  answer_hits: Float[Array, ""]


class Totals(NamedTuple):
  """Numbers of tokens in the whole batch, never below 1."""

  weights: Float[Array, ""]
  answers: Float[Array, ""]


TrainStep = Callable[[TrainState, Batch], tuple[TrainState, StepMetrics]]


def limits_at(cfg: TrainConfig, step: Any) -> Limits:
  """K and W in force at `step`, traced; None where nothing is scheduled."""
  return Limits(
    top_k=schedule.value_at(cfg.top_k_schedule, step),
    window=schedule.value_at(cfg.window_schedule, step),
  )


def batch_loss(
  model: Any,
  batch: Batch,
  noise_key: jax.Array | None = None,
  states: RowStates | None = None,
  *,
  totals: Totals,
  answer_weight: float,
  limits: Limits,
) -> tuple[Float[Array, ""], tuple[Sums, RowStates | None]]:
  """The objective's share of one micro-batch, its sums, its final states.

  Args:
    model: maps tokens `[B T]` to float32 logits `[B T V]`.
    batch: a micro-batch; arrays `[B T]`.
    noise_key: of the selection noise; None for none.
    states: that recurrent layers begin with, of `initial.begin`; None: zeros.
    totals: of the whole batch, so that shares add up to the mean.
    answer_weight: of the mean answer loss beside the mean loss of all tokens.
    limits: K and W in force.
  """
  options: dict[str, Any] = {"limits": limits, "noise_key": noise_key}
  if states is None:
    logits = model(batch.tokens, **options)
  else:
    logits, states = initial.run(model, batch.tokens, states, **options)
  targets = jnp.asarray(batch.targets)
  nll = loss_lib.cross_entropy(logits, targets)
  hits = loss_lib.ranked_first(logits, targets) * batch.answers
  sums = Sums(
    nll=jnp.sum(nll * batch.weights),
    answer_nll=jnp.sum(nll * batch.answers),
    answer_hits=jnp.sum(hits),
  )
  mean = sums.nll / totals.weights
  answer_mean = sums.answer_nll / totals.answers
  return mean + answer_weight * answer_mean, (sums, states)


def accumulate(
  grad_fn: Callable[..., Any],
  model: Any,
  batch: Batch,
  key: Any,
  states: RowStates | None = None,
  *,
  parts: int,
  mesh: Mesh,
) -> tuple[Sums, Any, RowStates | None]:
  """Gradients, sums and final states of `parts` micro-batches in turn.

  Args:
    grad_fn: `(model, micro_batch, key, states) -> ((loss, (sums, states)),
      gradients)`.
    model: differentiated.
    batch: rows divisible by `parts`.
    key: random key or None; each micro-batch folds in its index.
    states: initial ones, rows first, or None.
    parts: number of micro-batches.
    mesh: keeps each micro-batch split over the devices.
  """
  if parts == 1:
    (_, (sums, after)), grads = grad_fn(model, batch, key, states)
    return sums, grads, after

  def split(x: jax.Array) -> jax.Array:
    # Strided, so that no row leaves its device.
    x = x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)
    return jax.lax.with_sharding_constraint(x, batch_sharding(mesh, leading=1))

  def join(x: jax.Array) -> jax.Array:
    return x.swapaxes(0, 1).reshape(-1, *x.shape[2:])

  def body(carry: Any, item: Any) -> tuple[Any, RowStates | None]:
    index, micro, some = item
    sub = None if key is None else jax.random.fold_in(key, index)
    (_, (sums, after)), grads = grad_fn(model, micro, sub, some)
    return jax.tree.map(jnp.add, carry, (sums, grads)), after

  zero = (Sums(*(jnp.zeros(()),) * 3), jax.tree.map(jnp.zeros_like, model))
  items = (jnp.arange(parts), *jax.tree.map(split, (batch, states)))
  (sums, grads), after = jax.lax.scan(body, zero, items)
  return sums, grads, jax.tree.map(join, after)


def make_train_step(
  cfg: Config, tx: optax.GradientTransformation, *, mesh: Mesh
) -> TrainStep:
  """The pure step `(state, batch) -> (state, metrics)`, ready to jit.

  Args:
    cfg: loss weight, schedules, accumulation and seed are read.
    tx: the optimizer.
    mesh: the device mesh.
  """
  rate = schedule.learning_rate(cfg.optimizer, cfg.num_steps)
  tx = optax.with_extra_args_support(tx)

  def step_fn(
    state: TrainState, batch: Batch
  ) -> tuple[TrainState, StepMetrics]:
    totals = Totals(
      jnp.maximum(jnp.sum(batch.weights), 1.0),
      jnp.maximum(jnp.sum(batch.answers), 1.0),
    )
    # Before the forward pass on every device: where one CPU device sums first
    # and another last, they wait for each other.
    batch, totals = lax.optimization_barrier((batch, totals))
    objective = functools.partial(
      batch_loss,
      totals=totals,
      answer_weight=cfg.train.answer_loss_weight,
      limits=limits_at(cfg.train, state.step),
    )
    rows = batch.tokens.shape[0]
    sums, grads, after = accumulate(
      jax.value_and_grad(objective, has_aux=True),
      state.model,
      batch,
      _noise_key(cfg, state.step),
      initial.begin(cfg, state.kept, state.model, state.step, rows=rows),
      parts=cfg.train.grad_accum_steps,
      mesh=mesh,
    )
    updates, opt_state = tx.update(
      grads, state.opt_state, state.model, loss=_objective(cfg, sums, totals)
    )
    model = optax.apply_updates(state.model, updates)
    guard = read_guard(opt_state)
    # The schedule of the optimizer stands still where a step is skipped.
    taken = state.step if guard is None else state.opt_state.accepted
    metrics = StepMetrics(
      loss_nats=sums.nll / totals.weights,
      answer_loss_nats=sums.answer_nll / totals.answers,
      answer_accuracy=sums.answer_hits / totals.answers,
      answer_tokens=jnp.sum(batch.answers),
      grad_norm=optax.tree.norm(grads),
      learning_rate=jnp.asarray(rate(taken)),
      update_norm=optax.tree.norm(updates),
      token_hash=token_hash(jnp.asarray(batch.tokens)),
      guard=guard,
    )
    kept = initial.keep(cfg, state.kept, after)
    return TrainState(model, opt_state, state.step + 1, kept), metrics

  return step_fn


def _noise_key(cfg: Config, step: jax.Array) -> jax.Array | None:
  if cfg.model.hsa.selection_noise is Noise.NONE:
    return None
  return jax.random.fold_in(jax.random.key(cfg.train.seed), step)


def _objective(cfg: Config, sums: Sums, totals: Totals) -> Float[Array, ""]:
  """What the gradient is of."""
  answer_mean = sums.answer_nll / totals.answers
  return sums.nll / totals.weights + cfg.train.answer_loss_weight * answer_mean


def eval_step(model: Any, batch: Batch) -> Float[Array, "2"]:
  """Sum of the negative log-likelihoods in nats and number of targets."""
  logits = model(batch.tokens, limits=Limits(), noise_key=None)
  nll = loss_lib.cross_entropy(logits, jnp.asarray(batch.targets))
  return jnp.stack([jnp.sum(nll * batch.weights), jnp.sum(batch.weights)])
