"""What happens around the steps: logging, progress, validation, saving.

A feature of the loop is a hook. Hooks see the metrics of a finished step one
step late (`on_metrics`), so that the host never waits for the step it has just
sent off, and may ask for the state itself (`wants`, `on_state`), which does
wait, and for which the loop first makes sure that the step was finite.
"""

import enum
import signal
import types
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from hsa_jax.data.pipeline import Batch
from hsa_jax.parallel import place_batch
from hsa_jax.training.checkpoint import Checkpointer
from hsa_jax.training.metrics import MetricsWriter
from hsa_jax.training.state import TrainState
from hsa_jax.training.step import eval_step


class Moment(enum.Enum):
  """Where in the run a step stands."""

  STEP = "step"  # one of many
  STOP = "stop"  # a signal asked the run to end here
  END = "end"  # the last one


class Record(NamedTuple):
  """A finished step.

  Attributes:
    step: optimizer steps done.
    values: metric names with units.
    seconds: this step took, without compiling, validating and saving.
    tokens: in its batch.
    stage: name of its stage.
    moment: where the step stands.
  """

  step: int
  values: dict[str, float]
  seconds: float
  tokens: int
  stage: str
  moment: Moment


class Hook:
  """Base of all hooks; does nothing."""

  def on_metrics(self, record: Record) -> None:
    """Called for every step, in order, one step late."""

  def wants(self, step: int, moment: Moment) -> bool:
    """Whether `on_state` is to be called after `step` steps."""
    del step, moment
    return False

  def on_state(self, step: int, state: TrainState) -> None:
    """The state after `step` steps; the next step will consume its arrays."""

  def close(self) -> None:
    """Called once, also after an error."""


class MetricsLog(Hook):
  """Writes every `every`-th step, with throughput since the record before."""

  def __init__(self, writer: MetricsWriter, *, every: int):
    self._writer = writer
    self._every = every
    self._seconds, self._tokens, self._steps = 0.0, 0, 0

  def on_metrics(self, record: Record) -> None:
    self._seconds += record.seconds
    self._tokens += record.tokens
    self._steps += 1
    if record.step % self._every and record.moment is Moment.STEP:
      return
    values = dict(record.values)
    values["perf/step_s"] = self._seconds / self._steps
    values["perf/tokens_per_s"] = self._tokens / max(self._seconds, 1e-9)
    self._writer.write(record.step, values)
    self._seconds, self._tokens, self._steps = 0.0, 0, 0

  def close(self) -> None:
    self._writer.close()


class Save(Hook):
  """A checkpoint every `every` steps, at a signal and at the end."""

  def __init__(self, checkpointer: Checkpointer, *, every: int):
    self._checkpointer = checkpointer
    self._every = every

  def wants(self, step: int, moment: Moment) -> bool:
    return moment is not Moment.STEP or step % self._every == 0

  def on_state(self, step: int, state: TrainState) -> None:
    self._checkpointer.save(step, state)


class Validate(Hook):
  """Loss on fixed held-out text, every `every` steps and at the end."""

  def __init__(
    self,
    batches: Sequence[Batch],
    *,
    every: int,
    bits_per_byte: Callable[[float], float],
    report: Callable[[int, dict[str, float]], None],
    mesh: Mesh,
  ):
    """Keeps the batches; compiles at the first call.

    Args:
      batches: of this process, from `TrainData.validation_batches`.
      every: steps between two validations; 0 for the end alone.
      bits_per_byte: from nats per token.
      report: takes the step and the metrics.
      mesh: the device mesh.
    """
    self._batches = batches
    self._every = every
    self._bits_per_byte = bits_per_byte
    self._report = report
    self._mesh = mesh
    self._step = jax.jit(eval_step)

  def wants(self, step: int, moment: Moment) -> bool:
    if moment is Moment.END:
      return True
    return self._every > 0 and step % self._every == 0

  def on_state(self, step: int, state: TrainState) -> None:
    sums = [
      jax.device_get(self._step(state.model, place_batch(batch, self._mesh)))
      for batch in self._batches
    ]
    nll, count = (float(sum(s[i] for s in sums)) for i in range(2))
    nats = nll / max(count, 1.0)
    values = {"valid/loss_nats": nats}
    values["valid/bits_per_byte"] = self._bits_per_byte(nats)
    self._report(step, values)


class Interrupted(Exception):
  """The run was asked to end by a signal, and has saved its state.

  Attributes:
    step: optimizer steps done.
    signal_number: what asked; 15 for SIGTERM, 2 for an interrupt by hand.
  """

  def __init__(self, step: int, signal_number: int):
    self.step = step
    self.signal_number = signal_number
    name = signal.Signals(signal_number).name
    super().__init__(f"{name}: saved step {step}; the same command resumes it")


class StopSignal:
  """Turns SIGTERM and the first Ctrl-C into a wish, granted after the step.

  A second Ctrl-C ends the program at once. Use as a context manager, in the
  main thread (elsewhere it listens to nothing).
  """

  def __init__(self) -> None:
    self.number = 0
    self._previous: dict[int, Any] = {}

  def __enter__(self) -> "StopSignal":
    for number in (signal.SIGTERM, signal.SIGINT):
      try:
        self._previous[number] = signal.signal(number, self._note)
      except ValueError:  # Not the main thread.
        break
    return self

  def __exit__(self, *error: object) -> None:
    for number, handler in self._previous.items():
      signal.signal(number, handler)

  def requested(self, step: int) -> bool:
    """Whether to stop after `step`; the same answer on all processes."""
    if jax.process_count() > 1 and not self.number:
      # The coordinator of the job agrees on one step for all processes.
      if multihost_utils.reached_preemption_sync_point(step):
        self.number = signal.SIGTERM
    return bool(self.number)

  def _note(self, number: int, frame: types.FrameType | None) -> None:
    del frame
    if self.number == signal.SIGINT and number == signal.SIGINT:
      raise KeyboardInterrupt
    self.number = number
