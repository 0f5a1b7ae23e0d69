"""What happens around the steps: logging, progress, validation, saving.

A feature of the loop is a hook. Hooks see the metrics of a finished step one
step late (`on_metrics`), so that the host never waits for the step it has just
sent off, and may ask for the state itself (`wants`, `on_state`), which does
wait, and for which the loop first makes sure that the step was finite.
"""

import enum
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from hsa_jax.config import ModelConfig
from hsa_jax.data.pipeline import Batch
from hsa_jax.parallel import place_batch
from hsa_jax.training.metrics import MetricsWriter
from hsa_jax.training.state import TrainState
from hsa_jax.training.step import eval_step
from hsa_jax.training.throughput import Machine, Window, rates, useful_flops


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
    seq_len: tokens of a row.
    data_s: of `seconds`, in which the host waited for a batch.
    compile_s: spent on compiling before this step, beside `seconds`.
  """

  step: int
  values: dict[str, float]
  seconds: float
  tokens: int
  stage: str
  moment: Moment
  seq_len: int = 0
  data_s: float = 0.0
  compile_s: float = 0.0


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
  """Writes every `every`-th step, with the speed since the record before."""

  def __init__(
    self,
    writer: MetricsWriter,
    *,
    every: int,
    machine: Machine | None = None,
    model: ModelConfig | None = None,
  ):
    """Writes nothing yet.

    Args:
      writer: takes the records.
      every: steps between two of them.
      machine: for rates per device; None is one device of unknown speed.
      model: whose useful operations are counted; None counts none.
    """
    self._writer = writer
    self._every = every
    self._machine = machine or Machine(1)
    self._model = model
    self._window = Window()

  def on_metrics(self, record: Record) -> None:
    flops = record.tokens * useful_flops(self._model, record.seq_len)
    self._window = self._window.add(
      record.seconds, record.tokens, flops, record.data_s, record.compile_s
    )
    if record.step % self._every and record.moment is Moment.STEP:
      return
    values = record.values | rates(self._window, self._machine)
    self._writer.write(record.step, values)
    self._window = Window()

  def close(self) -> None:
    self._writer.close()


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
    self._last: tuple[int, float] | None = None

  def loss_at(self, step: int) -> float | None:
    """The loss in nats, if `step` is the last one validated."""
    if self._last is None or self._last[0] != step:
      return None
    return self._last[1]

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
    self._last = (step, nats)
    self._report(step, values)
