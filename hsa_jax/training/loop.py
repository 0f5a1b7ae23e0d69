"""The training loop."""

import contextlib
import functools
import os
from collections.abc import Callable, Sequence

import jax
from jax.sharding import Mesh

from hsa_jax.config import Config
from hsa_jax.data.pipeline import TrainData
from hsa_jax.parallel import local_rows, make_mesh, place_batch
from hsa_jax.training.beginning import first_state
from hsa_jax.training.boards import check_boards
from hsa_jax.training.checkpoint import Checkpointer
from hsa_jax.training.console import Console
from hsa_jax.training.guard import run_optimizer
from hsa_jax.training.hooks import Hook, Moment
from hsa_jax.training.initial import empty_kept
from hsa_jax.training.inputs import Inputs, open_inputs
from hsa_jax.training.program import StepPrograms
from hsa_jax.training.reader import Clock, Reader, Sent
from hsa_jax.training.restore import restore_newest
from hsa_jax.training.saving import retention
from hsa_jax.training.setup import make_hooks
from hsa_jax.training.state import TrainState, abstract_state
from hsa_jax.training.stop import Interrupted, StopSignal
from hsa_jax.training.watch import Watch
from hsa_jax.training.workdir import claim_workdir


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
    ConfigError: a package that the configuration asks for is not installed.
    WorkdirError: the folder cannot hold this run.
    CheckpointError: no checkpoint is whole, or one cannot be written.
    Diverged: loss or gradient is not finite, or as the guard has it.
    Interrupted: a signal ended the run, after saving.
  """
  check_boards(cfg)
  inputs = open_inputs(cfg) if inputs is None else inputs
  mesh = make_mesh(cfg.mesh)
  console = Console(active=jax.process_index() == 0)
  tx = run_optimizer(cfg)
  abstract = abstract_state(
    inputs.build,
    tx,
    mesh=mesh,
    host_optimizer=cfg.train.offload_optimizer,
    kept=empty_kept(cfg),
  )
  with contextlib.ExitStack() as stack:
    if console.active:
      stack.enter_context(claim_workdir(workdir, cfg))
    stack.enter_context(jax.set_mesh(mesh))
    stop = stack.enter_context(StopSignal())
    keep = retention(cfg.train)
    saver = Checkpointer(workdir, inputs.info, retention=keep)
    stack.callback(saver.close)
    state = restore_newest(saver, abstract, console.say)
    if state is None:
      state = first_state(cfg, inputs, tx, abstract=abstract, mesh=mesh)
    start = int(state.step)
    console.say(_headline(cfg, state, mesh, start))
    hooks = make_hooks(
      cfg, inputs, workdir, saver, console, mesh, start, state.model
    )
    return run_steps(
      cfg,
      state,
      StepPrograms(cfg, tx, abstract, mesh=mesh),
      inputs.data,
      [*hooks, *evaluators],
      stop,
      Watch(cfg.train, workdir, say=console.say),
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
  watch: Watch,
  *,
  mesh: Mesh,
  say: Callable[[str], None],
) -> TrainState:
  """The loop itself: from `state.step` to the end, or to a signal."""
  start, clock = int(state.step), Clock()
  batches = data.iterator(start, share=functools.partial(local_rows, mesh))
  reader, leaves = Reader(hooks, clock, watch), programs.pack(state)
  with contextlib.ExitStack() as stack:
    for hook in hooks:
      stack.callback(hook.close)
    for step in range(start + 1, cfg.num_steps + 1):
      with clock.fetching():
        rows = next(batches)
        batch = place_batch(rows, mesh)
      if not programs.has(batch):
        reader.flush()  # what the step on its way takes is not compiling
      with clock.compiling():
        run_step = programs.program(leaves, batch, say)
      with jax.profiler.StepTraceAnnotation("train", step_num=step):
        leaves, metrics = run_step(leaves, batch)
      moment = _moment(cfg, step, stop)
      stage = data.stage(step - 1).name
      tokens = batch.tokens.size
      reader.push(Sent(step, metrics, rows, tokens, stage, moment))
      due = [hook for hook in hooks if hook.wants(step, moment)]
      if due or moment is not Moment.STEP:
        reader.flush()
      with clock.paused():
        for hook in due:
          hook.on_state(step, programs.unpack(leaves))
      if moment is Moment.STOP:
        raise Interrupted(step, stop.number)
  return programs.unpack(leaves)


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
  asked = stop.requested(step)
  if step == cfg.num_steps:
    return Moment.END
  return Moment.STOP if asked else Moment.STEP
