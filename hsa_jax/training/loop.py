"""The training loop."""

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import optax
from jax.sharding import Mesh

from hsa_jax.config import Config
from hsa_jax.data.build import ensure_store
from hsa_jax.data.pipeline import TrainData
from hsa_jax.data.tokenizer import load_tokenizer
from hsa_jax.models import LanguageModel
from hsa_jax.parallel import make_mesh, place_batch
from hsa_jax.training.checkpoint import Checkpointer, RunInfo, tokens_seen
from hsa_jax.training.console import Console, Progress
from hsa_jax.training.hooks import (
  Hook,
  Interrupted,
  MetricsLog,
  Moment,
  Record,
  Save,
  StopSignal,
  Validate,
)
from hsa_jax.training.metrics import MetricsWriter, read_step_metrics
from hsa_jax.training.optimizer import make_optimizer
from hsa_jax.training.program import StepPrograms
from hsa_jax.training.state import (
  BuildModel,
  TrainState,
  abstract_state,
  init_state,
)
from hsa_jax.training.step import StepMetrics
from hsa_jax.training.workdir import claim_workdir


class Diverged(RuntimeError):
  """Loss or gradient is no longer finite; the last good checkpoint stays."""


class Inputs(NamedTuple):
  """All that a run reads.

  Attributes:
    build: makes the model.
    data: batches by step.
    info: what every checkpoint repeats.
    bytes_per_token: of the validation text.
  """

  build: BuildModel
  data: TrainData
  info: RunInfo
  bytes_per_token: float


def open_inputs(cfg: Config) -> Inputs:
  """Tokenizer, token store (made first if it can be) and model of a config.

  Raises:
    DataError: with one line that says what to do.
  """
  tokenizer = load_tokenizer(cfg.data.tokenizer)
  store = ensure_store(cfg.data)
  return Inputs(
    build=lambda rngs: LanguageModel(cfg.model, rngs=rngs),
    data=TrainData(cfg, store, tokenizer),
    info=RunInfo(cfg, tokenizer.spec, tokenizer.fingerprint),
    bytes_per_token=store.bytes_per_token("valid"),
  )


def train(
  cfg: Config,
  *,
  workdir: str | os.PathLike[str],
  inputs: Inputs | None = None,
  evaluators: Sequence[Hook] = (),
) -> TrainState:
  """Trains to the end of the last stage, from the newest checkpoint if any.

  The run is a function of the configuration: killed at any moment and started
  again, it takes the same steps to the same bits on the same machine.

  Args:
    cfg: validated.
    workdir: receives `config.json`, `metrics.jsonl`, `tensorboard/` and
      `checkpoints/`.
    inputs: None opens those of the configuration.
    evaluators: hooks that run beside the built-in ones.

  Returns:
    The last state.

  Raises:
    WorkdirError: the folder cannot hold this run.
    CheckpointError: the newest checkpoint is damaged, or cannot be written.
    Diverged: loss or gradient is not finite.
    Interrupted: a signal ended the run, after saving.
  """
  inputs = open_inputs(cfg) if inputs is None else inputs
  mesh = make_mesh(cfg.mesh)
  console = Console(active=jax.process_index() == 0)
  tx = make_optimizer(cfg.optimizer, num_steps=cfg.num_steps)
  abstract = abstract_state(inputs.build, tx, mesh=mesh)
  with contextlib.ExitStack() as stack:
    if console.active:
      stack.enter_context(claim_workdir(workdir, cfg))
    stack.enter_context(jax.set_mesh(mesh))
    stop = stack.enter_context(StopSignal())
    saver = Checkpointer(workdir, inputs.info)
    stack.callback(saver.close)
    start = saver.latest_step or 0
    state = _start_state(cfg, inputs, saver, abstract, tx)
    console.say(_headline(cfg, state, mesh, start))
    hooks = _default_hooks(cfg, inputs, workdir, saver, console, mesh, start)
    return run_steps(
      cfg,
      state,
      StepPrograms(cfg, tx, abstract, mesh=mesh),
      inputs.data,
      [*hooks, *evaluators],
      stop,
      mesh=mesh,
      say=console.say,
    )


def run_steps(
  cfg: Config,
  state: TrainState,
  programs: StepPrograms,
  data: TrainData,
  hooks: Sequence[Hook],
  stop: StopSignal,
  *,
  mesh: Mesh,
  say: Callable[[str], None],
) -> TrainState:
  """The loop itself: from `state.step` to the end, or to a signal."""
  start, clock = int(state.step), Clock()
  batches = data.iterator(
    start, process_index=jax.process_index(), process_count=jax.process_count()
  )
  reader, leaves = Reader(hooks, clock), programs.pack(state)
  with contextlib.ExitStack() as stack:
    for hook in hooks:
      stack.callback(hook.close)
    for step in range(start + 1, cfg.num_steps + 1):
      batch = place_batch(next(batches), mesh)
      with clock.paused():
        run_step = programs.program(leaves, batch, say)
      leaves, metrics = run_step(leaves, batch)
      moment = _moment(cfg, step, stop)
      stage = data.stage(step - 1)
      reader.push(step, metrics, batch.tokens.size, stage.name, moment)
      due = [hook for hook in hooks if hook.wants(step, moment)]
      if due or moment is not Moment.STEP:
        reader.flush()
      with clock.paused():
        for hook in due:
          hook.on_state(step, programs.unpack(leaves))
      if moment is Moment.STOP:
        raise Interrupted(step, stop.number)
  return programs.unpack(leaves)


class Clock:
  """Wall time of the steps, without what is not training."""

  def __init__(self) -> None:
    self._last = time.perf_counter()
    self._off = 0.0

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Leaves out what happens inside."""
    start = time.perf_counter()
    try:
      yield
    finally:
      self._off += time.perf_counter() - start

  def lap(self) -> float:
    """Seconds since the last lap."""
    now = time.perf_counter()
    seconds, self._last, self._off = now - self._last - self._off, now, 0.0
    return seconds


class Reader:
  """Reads metrics one step late and stops a run that has diverged."""

  def __init__(self, hooks: Sequence[Hook], clock: Clock):
    self._hooks = hooks
    self._clock = clock
    self._pending: tuple[Any, ...] | None = None

  def push(
    self,
    step: int,
    metrics: StepMetrics,
    tokens: int,
    stage: str,
    moment: Moment,
  ) -> None:
    """Takes a step that was just sent off; reads the one before it."""
    self.flush()
    self._pending = (step, metrics, tokens, stage, moment)

  def flush(self) -> None:
    """Waits for the pending step, checks it, and tells the hooks."""
    if self._pending is None:
      return
    step, metrics, tokens, stage, moment = self._pending
    self._pending = None
    values = read_step_metrics(metrics)
    _check_finite(step, values)
    record = Record(step, values, self._clock.lap(), tokens, stage, moment)
    for hook in self._hooks:
      hook.on_metrics(record)


def _check_finite(step: int, values: dict[str, float]) -> None:
  bad = {k: v for k, v in values.items() if not math.isfinite(v)}
  if bad:
    text = ", ".join(f"{name} = {value}" for name, value in bad.items())
    raise Diverged(
      f"training diverged at step {step}: {text} (learning rate"
      f" {values['train/learning_rate']:.3g})\n"
      "  nothing of this step was saved; the checkpoints before it are good\n"
      "  fix: in a new --workdir, try a lower optimizer.learning_rate, a longer"
      " optimizer.warmup_steps or a lower optimizer.clip_norm"
    )


def _start_state(
  cfg: Config,
  inputs: Inputs,
  saver: Checkpointer,
  abstract: TrainState,
  tx: optax.GradientTransformation,
) -> TrainState:
  """The newest checkpoint, or fresh parameters."""
  if (step := saver.latest_step) is not None:
    return saver.restore(step, abstract)
  return init_state(inputs.build, tx, seed=cfg.train.seed, abstract=abstract)


def _headline(cfg: Config, state: TrainState, mesh: Mesh, start: int) -> str:
  if start == cfg.num_steps:
    return f"nothing to do: all {start:,} steps are done"
  verb = "resuming at" if start else "starting at"
  count = sum(leaf.size for leaf in jax.tree.leaves(state.model))
  device = mesh.devices.flat[0].device_kind
  plural = "s" if mesh.size > 1 else ""
  return (
    f"{count:,} parameters on {mesh.size} {device} device{plural},"
    f" {verb} step {start:,} of {cfg.num_steps:,}"
  )


def _moment(cfg: Config, step: int, stop: StopSignal) -> Moment:
  if step == cfg.num_steps:
    return Moment.END
  return Moment.STOP if stop.requested(step) else Moment.STEP


def _default_hooks(
  cfg: Config,
  inputs: Inputs,
  workdir: str | os.PathLike[str],
  saver: Checkpointer,
  console: Console,
  mesh: Mesh,
  start: int,
) -> list[Hook]:
  """Validation, saving and, on the first process, logs and progress."""
  train_cfg = cfg.train
  writer = MetricsWriter(workdir, start_step=start) if console.active else None

  def report(step: int, values: dict[str, float]) -> None:
    console.values(step, values)
    if writer is not None:
      writer.write(step, values)

  share = {
    "process_index": jax.process_index(),
    "process_count": jax.process_count(),
  }
  shared = [
    Validate(
      inputs.data.validation_batches(train_cfg.eval_batches, **share),
      every=train_cfg.eval_every,
      bits_per_byte=lambda nats: nats / math.log(2) / inputs.bytes_per_token,
      report=report,
      mesh=mesh,
    ),
    Save(saver, every=train_cfg.checkpoint_every),
  ]
  if writer is None:
    return shared
  progress = Progress(
    console,
    every=train_cfg.log_every,
    start_step=start,
    num_steps=cfg.num_steps,
    tokens_done=tokens_seen(cfg, start),
    tokens_total=tokens_seen(cfg, cfg.num_steps),
  )
  return [progress, MetricsLog(writer, every=train_cfg.log_every), *shared]
