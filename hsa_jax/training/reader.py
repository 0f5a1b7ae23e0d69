"""Metrics of the steps, read one step late, and the time the steps took."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from hsa_jax.data.pipeline import Batch
from hsa_jax.training.hooks import Hook, Moment, Record
from hsa_jax.training.metrics import read_step_metrics
from hsa_jax.training.step import StepMetrics
from hsa_jax.training.watch import Watch


class Lap(NamedTuple):
  """Seconds between two readings.

  Attributes:
    step_s: of training, without what is not training.
    data_s: of these, in which the host waited for a batch or sent it off.
    compile_s: left out of `step_s`, spent on compiling.
  """

  step_s: float
  data_s: float
  compile_s: float


class Clock:
  """Wall time of the steps, without what is not training."""

  def __init__(self) -> None:
    self._last = time.perf_counter()
    self._off = self._data = self._compile = 0.0

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Leaves out what happens inside."""
    start = time.perf_counter()
    try:
      yield
    finally:
      self._off += time.perf_counter() - start

  @contextlib.contextmanager
  def compiling(self) -> Iterator[None]:
    """Leaves out what happens inside, and says how long it was."""
    start = time.perf_counter()
    with self.paused():
      yield
    self._compile += time.perf_counter() - start

  @contextlib.contextmanager
  def fetching(self) -> Iterator[None]:
    """Counts what happens inside as waiting for data."""
    start = time.perf_counter()
    yield
    self._data += time.perf_counter() - start

  def lap(self) -> Lap:
    """Time since the last lap."""
    now = time.perf_counter()
    lap = Lap(now - self._last - self._off, self._data, self._compile)
    self._last = now
    self._off = self._data = self._compile = 0.0
    return lap


class Sent(NamedTuple):
  """A step that was sent off.

  Attributes:
    step: optimizer steps done after it.
    metrics: on their way.
    batch: rows of this process, on the host.
    tokens: of the whole batch.
    stage: name of its stage.
    moment: where it stands.
  """

  step: int
  metrics: StepMetrics
  batch: Batch
  tokens: int
  stage: str
  moment: Moment


class Reader:
  """Reads metrics one step late, so that the device always has work."""

  def __init__(self, hooks: Sequence[Hook], clock: Clock, watch: Watch):
    self._hooks = hooks
    self._clock = clock
    self._watch = watch
    self._pending: Sent | None = None

  def push(self, sent: Sent) -> None:
    """Takes a step that was just sent off; reads the one before it."""
    self.flush()
    self._pending = sent

  def flush(self) -> None:
    """Waits for the pending step, checks it, and tells the hooks.

    Raises:
      Diverged: the step went wrong and the run must end.
    """
    sent, self._pending = self._pending, None
    if sent is None:
      return
    values = read_step_metrics(sent.metrics)
    self._watch.check(sent.step, values, sent.batch)
    lap = self._clock.lap()
    record = Record(
      step=sent.step,
      values=values,
      seconds=lap.step_s,
      tokens=sent.tokens,
      stage=sent.stage,
      moment=sent.moment,
      seq_len=sent.batch.tokens.shape[1],
      data_s=lap.data_s,
      compile_s=lap.compile_s,
    )
    for hook in self._hooks:
      hook.on_metrics(record)
