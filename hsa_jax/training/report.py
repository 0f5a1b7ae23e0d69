"""What a run will be, before it starts: size, work, memory, placement."""

from collections.abc import Iterator
from typing import Any

import jax
from jax.sharding import Mesh

from hsa_jax.config import Config, StageConfig
from hsa_jax.models import LanguageModel
from hsa_jax.models.flops import training_flops_per_token
from hsa_jax.models.parameters import count_parameters
from hsa_jax.parallel import (
  describe_mesh,
  format_sharding_table,
  make_mesh,
  sharding_table,
)
from hsa_jax.training.checkpoint import tokens_seen
from hsa_jax.training.guard import run_optimizer
from hsa_jax.training.initial import empty_kept
from hsa_jax.training.program import StepPrograms, abstract_batch
from hsa_jax.training.state import TrainState, abstract_state

MIB = 1024**2


def describe(cfg: Config) -> str:
  """The report of `train.py --check`.

  Compiles the step of every stage to ask for its memory; allocates nothing
  and runs nothing.

  Args:
    cfg: validated, for the devices of this process.
  """
  mesh, tx, state = _placed(cfg)
  sections = [
    "\n".join(_parameters(cfg)),
    "\n".join(_work(cfg)),
    "\n".join(_memory(cfg, state, tx, mesh)),
    _placement(state, mesh),
  ]
  return "\n\n".join(sections)


def placement(cfg: Config) -> str:
  """Where everything lives: the mesh, then one line per parameter.

  Args:
    cfg: validated, for the devices of this job. Allocates and compiles nothing.
  """
  mesh, _, state = _placed(cfg)
  return _placement(state, mesh)


def _placed(cfg: Config) -> tuple[Mesh, Any, TrainState]:
  mesh = make_mesh(cfg.mesh)
  tx = run_optimizer(cfg)
  state = abstract_state(
    lambda rngs: LanguageModel(cfg.model, rngs=rngs),
    tx,
    mesh=mesh,
    host_optimizer=cfg.train.offload_optimizer,
    kept=empty_kept(cfg),
  )
  return mesh, tx, state


def _placement(state: TrainState, mesh: Mesh) -> str:
  optimizer = _bytes({"opt_state": state.opt_state}, mesh)
  return (
    f"{describe_mesh(mesh)}\n{format_sharding_table(state.model, mesh)}\n"
    f"optimizer, placed by the same table: {optimizer:,} bytes/device"
  )


def _parameters(cfg: Config) -> Iterator[str]:
  counts = count_parameters(cfg.model)
  yield f"parameters  {counts.total:,}"
  for name, count in counts._asdict().items():
    if count:
      yield f"  {name:10} {count:14,}  {count / counts.total:6.1%}"


def _work(cfg: Config) -> Iterator[str]:
  tokens = tokens_seen(cfg, cfg.num_steps)
  yield f"training    {cfg.num_steps:,} steps, {tokens:,} tokens"
  for stage in cfg.data.stages:
    flops = training_flops_per_token(cfg.model, stage.seq_len)
    step = flops * stage.seq_len * stage.batch_size
    yield (
      f"  {stage.name}: {stage.num_steps:,} steps of {stage.batch_size} x"
      f" {stage.seq_len} tokens; {flops / 1e6:,.2f} MFLOP per token,"
      f" {step / 1e9:,.1f} GFLOP per step"
    )


def _memory(
  cfg: Config, state: TrainState, tx: Any, mesh: Mesh
) -> Iterator[str]:
  model = _bytes(state.model, mesh)
  optimizer = _bytes({"opt_state": state.opt_state}, mesh)
  yield "memory      per device"
  yield f"  parameters       {model / MIB:10,.1f} MiB"
  yield f"  optimizer        {optimizer / MIB:10,.1f} MiB"
  with jax.set_mesh(mesh):
    programs = StepPrograms(cfg, tx, state, mesh=mesh)
    for stage in _distinct(cfg.data.stages):
      batch = abstract_batch(stage, mesh)
      program = programs.program(programs.pack(state), batch)
      analysis: Any = program.memory_analysis()
      temporary = analysis.temp_size_in_bytes
      yield (
        f"  step of {stage.batch_size} x {stage.seq_len}: temporaries"
        f" {temporary / MIB:,.1f} MiB, in all"
        f" {(temporary + model + optimizer) / MIB:,.1f} MiB"
      )


def _bytes(tree: Any, mesh: Mesh) -> int:
  return sum(row.bytes_per_device for row in sharding_table(tree, mesh))


def _distinct(stages: tuple[StageConfig, ...]) -> list[StageConfig]:
  return list({(s.batch_size, s.seq_len): s for s in stages}.values())
