"""When a checkpoint is saved, and which of them stay."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from hsa_jax.config import TrainConfig
from hsa_jax.training.checkpoint import LOSS, Checkpointer
from hsa_jax.training.hooks import Hook, Moment
from hsa_jax.training.state import TrainState


def retention(cfg: TrainConfig) -> Any:
  """Which checkpoints stay: the newest, every so many steps, the best.

  A checkpoint stays if any of the three rules keeps it.

  Args:
    cfg: `keep_checkpoints`, `keep_every` and `keep_best` are read.

  Returns:
    A preservation policy of Orbax.
  """
  policies: Any = ocp.training.preservation_policies
  rules = [policies.LatestN(cfg.keep_checkpoints)]
  if cfg.keep_every:
    rules.append(policies.EveryNSteps(cfg.keep_every))
  if cfg.keep_best:
    best = policies.BestN(
      get_metric_fn=lambda metrics: metrics[LOSS],
      reverse=True,  # the lowest loss is the best
      n=cfg.keep_best,
      keep_checkpoints_without_metrics=False,
    )
    rules.append(best)
  return policies.AnyPreservationPolicy(rules)


class Save(Hook):
  """A checkpoint by steps and by time, at a signal and at the end."""

  def __init__(
    self,
    checkpointer: Checkpointer,
    cfg: TrainConfig,
    *,
    loss_at: Callable[[int], float | None] = lambda step: None,
    now: Callable[[], float] = time.monotonic,
  ):
    """Saves nothing yet; the time begins to run.

    Args:
      checkpointer: writes.
      cfg: `checkpoint_every` and `checkpoint_every_s` are read.
      loss_at: validation loss in nats of a step, if it was validated.
      now: a clock in seconds.
    """
    self._checkpointer = checkpointer
    self._cfg = cfg
    self._loss_at = loss_at
    self._now = now
    self._saved_at = now()

  def wants(self, step: int, moment: Moment) -> bool:
    if moment is not Moment.STEP or step % self._cfg.checkpoint_every == 0:
      return True
    return self._cfg.checkpoint_every_s > 0 and self._time_is_up(step)

  def on_state(self, step: int, state: TrainState) -> None:
    self._checkpointer.save(step, state, loss=self._loss_at(step))
    self._saved_at = self._now()

  def _time_is_up(self, step: int) -> bool:
    """The same answer on all processes, whose clocks differ.

    With several, only the first one's clock counts, and it is asked every
    `log_every` steps: an answer costs a wait for all.
    """
    due = self._now() - self._saved_at >= self._cfg.checkpoint_every_s
    if jax.process_count() == 1:
      return due
    if step % self._cfg.log_every:
      return False
    return bool(multihost_utils.broadcast_one_to_all(np.asarray(due)))
