"""The hooks of a run: what happens around its steps."""

import functools
import math
import os

import jax
from jax.sharding import Mesh

from hsa_jax.config import Config, ModelConfig
from hsa_jax.models import LanguageModel
from hsa_jax.parallel import local_rows
from hsa_jax.parallel.chips import peak_flops
from hsa_jax.training.boards import open_boards
from hsa_jax.training.checkpoint import Checkpointer, tokens_seen
from hsa_jax.training.console import Console, Progress
from hsa_jax.training.hooks import Hook, MetricsLog, Validate
from hsa_jax.training.inputs import Inputs
from hsa_jax.training.metrics import MetricsWriter
from hsa_jax.training.profiling import Profile
from hsa_jax.training.saving import Save
from hsa_jax.training.selection import Diagnose, can_diagnose
from hsa_jax.training.throughput import Machine


def make_hooks(
  cfg: Config,
  inputs: Inputs,
  workdir: str | os.PathLike[str],
  saver: Checkpointer,
  console: Console,
  mesh: Mesh,
  start: int,
  model: object,
) -> list[Hook]:
  """Logs and progress on the first process; what all do together on all.

  Args:
    cfg: of the run.
    inputs: what it reads.
    workdir: where it writes.
    saver: of its checkpoints.
    console: silent on all processes but the first.
    mesh: the device mesh.
    start: steps done before.
    model: of the run, looked at but not kept.
  """
  writer = None
  if console.active:
    boards = open_boards(cfg, workdir, start_step=start)
    writer = MetricsWriter(workdir, start_step=start, boards=boards)

  def record(step: int, values: dict[str, float]) -> None:
    if writer is not None:
      writer.write(step, values)

  def report(step: int, values: dict[str, float]) -> None:
    console.values(step, values)
    record(step, values)

  batches = inputs.data.validation_batches(
    cfg.train.eval_batches, share=functools.partial(local_rows, mesh)
  )
  validate = Validate(
    batches,
    every=cfg.train.eval_every,
    bits_per_byte=lambda nats: nats / math.log(2) / inputs.bytes_per_token,
    report=report,
    mesh=mesh,
  )
  hooks: list[Hook] = []
  if writer is not None:
    counted = cfg.model if isinstance(model, LanguageModel) else None
    hooks += _logs(cfg, writer, console, mesh, start, counted)
  if can_diagnose(model):
    hooks.append(Diagnose(batches[0], cfg.train, report=record, mesh=mesh))
  # The loss of a step must be known when its checkpoint is saved.
  hooks += [validate, Save(saver, cfg.train, loss_at=validate.loss_at)]
  if console.active:
    hooks.append(Profile(workdir, cfg.train.profile_steps, say=console.say))
  return hooks


def _logs(
  cfg: Config,
  writer: MetricsWriter,
  console: Console,
  mesh: Mesh,
  start: int,
  model: ModelConfig | None,
) -> list[Hook]:
  kind = mesh.devices.flat[0].device_kind
  device = jax.local_devices()[0]
  machine = Machine(mesh.size, peak_flops(kind), device)
  every = cfg.train.log_every
  return [
    Progress(
      console,
      every=every,
      start_step=start,
      num_steps=cfg.num_steps,
      tokens_done=tokens_seen(cfg, start),
      tokens_total=tokens_seen(cfg, cfg.num_steps),
    ),
    MetricsLog(writer, every=every, machine=machine, model=model),
  ]
