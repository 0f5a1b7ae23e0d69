"""Updates that should not be made: judged inside the step, held back there.

The step consumes the arrays it is given, so a bad update can only be refused
where it is computed. The guard wraps the optimizer: its state travels in the
checkpoint, and a resumed run judges as the one that was not interrupted.
"""

import enum
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from hsa_jax.config import Config, Guard, TrainConfig
from hsa_jax.training.offload import fetched
from hsa_jax.training.optimizer import make_optimizer

SPIKE_WARMUP = 100  # accepted steps before a norm can be called unusual
FORGET = 0.01  # of the running mean at each step; of a skip, made up for


class Verdict(enum.IntEnum):
  """What the guard thinks of an update."""

  FINE = 0
  SPIKE = 1
  NOT_FINITE = 2


class GuardState(NamedTuple):
  """The optimizer's state, and what the guard remembers.

  Attributes:
    inner: of the optimizer itself.
    mean_norm: running mean of the gradient norms that were accepted.
    accepted: steps taken.
    skipped: steps held back.
    debt: skips not made up for yet; each good step takes `FORGET` off.
    verdict: on the last update, a `Verdict`.
  """

  inner: Any
  mean_norm: Float[Array, ""]
  accepted: Int[Array, ""]
  skipped: Int[Array, ""]
  debt: Float[Array, ""]
  verdict: Int[Array, ""]


class GuardReading(NamedTuple):
  """What a step reports of its guard; device scalars until they are read."""

  verdict: Int[Array, ""]
  skipped: Int[Array, ""]
  debt: Float[Array, ""]


def is_guarded(cfg: TrainConfig) -> bool:
  """Whether a bad update must be held back inside the step.

  Where a run only stops at a loss that is not finite, the host sees it before
  anything is saved, and the step needs no guard.
  """
  return cfg.on_nonfinite is Guard.SKIP or cfg.on_spike is not Guard.IGNORE


def run_optimizer(cfg: Config) -> optax.GradientTransformation:
  """The optimizer of a run, behind the guard if one is asked for."""
  tx = make_optimizer(cfg.optimizer, num_steps=cfg.num_steps)
  tx = guarded(tx, cfg.train)
  return fetched(tx) if cfg.train.offload_optimizer else tx


def guarded(
  tx: optax.GradientTransformation,
  cfg: TrainConfig,
  *,
  warmup: int = SPIKE_WARMUP,
) -> optax.GradientTransformation:
  """The optimizer that leaves out bad updates; `tx` itself if none is asked.

  Held back, the parameters, the optimizer's moments and its schedule stay as
  they were. Its `update` takes the step's loss as `loss`.

  Args:
    tx: the optimizer.
    cfg: what to hold back.
    warmup: accepted steps before a gradient norm can be a spike.
  """
  if not is_guarded(cfg):
    return tx
  judge = functools.partial(_judge, cfg=cfg, warmup=warmup)

  def init(params: Any) -> GuardState:
    count = jnp.zeros((), jnp.int32)
    zero = jnp.zeros((), jnp.float32)
    return GuardState(tx.init(params), zero, count, count, zero, count)

  def update(
    grads: Any, state: GuardState, params: Any = None, *, loss: jax.Array
  ) -> tuple[Any, GuardState]:
    norm = optax.tree.norm(grads)
    updates, inner = tx.update(grads, state.inner, params)
    verdict = judge(state, norm, loss + optax.tree.norm(updates))
    good = verdict == Verdict.FINE
    updates = jax.tree.map(lambda u: jnp.where(good, u, 0), updates)
    inner = jax.tree.map(
      lambda new, old: jnp.where(good, new, old), inner, state.inner
    )
    return updates, _remember(state, inner, norm, verdict)

  with_loss: Any = update  # optax's own type has room for it, unnamed
  return optax.GradientTransformationExtraArgs(init, with_loss)


def read_guard(opt_state: Any) -> GuardReading | None:
  """The guard's part of an optimizer state; None without a guard."""
  if not isinstance(opt_state, GuardState):
    return None
  return GuardReading(opt_state.verdict, opt_state.skipped, opt_state.debt)


def overdrawn(debt: float, cfg: TrainConfig) -> bool:
  """Whether more steps were skipped than the configuration bears."""
  return math.floor(debt + 1e-3) > cfg.max_skips


def _judge(
  state: GuardState,
  norm: jax.Array,
  others: jax.Array,
  *,
  cfg: TrainConfig,
  warmup: int,
) -> jax.Array:
  """The `Verdict`; `others` is a sum that must be finite too."""
  spike = jnp.zeros((), bool)
  if cfg.on_spike is not Guard.IGNORE:
    unusual = norm > cfg.spike_factor * state.mean_norm
    spike = unusual & (state.accepted >= warmup)
  finite = jnp.isfinite(norm) & jnp.isfinite(others)
  verdict = jnp.where(spike, int(Verdict.SPIKE), int(Verdict.FINE))
  return jnp.where(finite, verdict, int(Verdict.NOT_FINITE)).astype(jnp.int32)


def _remember(
  state: GuardState, inner: Any, norm: jax.Array, verdict: jax.Array
) -> GuardState:
  good = verdict == Verdict.FINE
  # A plain mean at first, then one with a memory of some 100 steps.
  share = jnp.maximum(1.0 / (state.accepted + 1.0), FORGET)
  mean = state.mean_norm + share * (norm - state.mean_norm)
  paid = jnp.maximum(state.debt - FORGET, 0.0)
  return GuardState(
    inner=inner,
    mean_norm=jnp.where(good, mean, state.mean_norm),
    accepted=state.accepted + good,
    skipped=state.skipped + ~good,
    debt=jnp.where(good, paid, state.debt + 1.0),
    verdict=verdict,
  )
