"""Mamba-2 beyond its training length, and what repairs it (arXiv 2507.02782).

List:     python -m hsa_jax.cli.sweep --config=configs/length_repair.py --list
Run:      python -m hsa_jax.cli.sweep --config=configs/length_repair.py --workdir=runs/length_repair --seeds=3 --run --jobs=2
Report:   python -m hsa_jax.cli.sweep --config=configs/length_repair.py --workdir=runs/length_repair --seeds=3 --report
One cell: python train.py --config=configs/length_repair.py --workdir=runs/length_repair_base (the base)

The base is trained on rows of 128 bytes that begin with a state of zeros. Every
other cell begins with the finished base and goes on for 500 steps of the same
data; they differ in the state that a row begins with, and `zero` is the control.
Measured: perplexity of the same last tokens behind contexts up to 512 times as
long, and effective remembrance. docs/companions.md has what was found.

Sizes:    tiny   minutes a cell on one core
          smoke  a few steps; shows that everything works, learns nothing
"""

import dataclasses

from configs import mamba2_tiny
from hsa_jax import config as c
from hsa_jax.ablation import Cell, Grid, Measure, cell_config

SIZES = ("tiny", "smoke")
STEPS = {"tiny": (1_500, 500), "smoke": (4, 2)}
SEQ_LEN = 128
TEXT = {
  "tiny": Measure("128,512,2K,8K,32K,64K", "16", "ppl", ""),
  "smoke": Measure("128,512", "2", "ppl", ""),
}
REMEMBRANCE = {
  "tiny": Measure("512,2K", "8", "effective_remembrance", ""),
  "smoke": Measure("256", "1", "effective_remembrance", ""),
}
# Rows of `tbtt` go on through the text for so many steps.
STREAM_STEPS = 64


def stage_of(steps: int, stream_steps: int = 1) -> c.StageConfig:
  """Text alone."""
  return c.StageConfig(
    name="text",
    num_steps=steps,
    seq_len=SEQ_LEN,
    batch_size=16,
    stream_steps=stream_steps,
  )


def base_of(size: str) -> c.Config:
  """Two layers with states of 64 columns, on text."""
  cfg = mamba2_tiny.build()
  steps, _ = STEPS[size]
  model = dataclasses.replace(
    cfg.model,
    num_lower_layers=2,
    mamba2=dataclasses.replace(cfg.model.mamba2, state_dim=64),
  )
  if size == "smoke":
    model = dataclasses.replace(
      model, embed_dim=32, num_heads=2, num_kv_heads=2, head_dim=16
    )
  return dataclasses.replace(
    cfg,
    model=model,
    data=dataclasses.replace(cfg.data, stages=(stage_of(steps),)),
    optimizer=dataclasses.replace(
      cfg.optimizer, warmup_steps=min(30, steps // 2)
    ),
  )


def further(size: str, stream_steps: int) -> dict[str, object]:
  """The steps after the base, with a tenth of its learning rates."""
  optimizer = base_of(size).optimizer
  return {
    "data.stages": (stage_of(STEPS[size][1], stream_steps),),
    "optimizer.learning_rate": optimizer.learning_rate / 10,
    "optimizer.muon_learning_rate": optimizer.muon_learning_rate / 10,
  }


def repairs(size: str) -> tuple[Cell, ...]:
  """The control, two kinds of noise and two kinds of states."""
  modes = (
    ("zero", c.InitialState.ZERO, "the further steps alone repair it"),
    ("random", c.InitialState.RANDOM_NOISE, "any other beginning repairs it"),
    (
      "fitted",
      c.InitialState.FITTED_NOISE,
      "noise with the moments of final states repairs it",
    ),
    (
      "passing",
      c.InitialState.STATE_PASSING,
      "final states of unrelated text repair it",
    ),
    (
      "tbtt",
      c.InitialState.TBTT,
      "the states of the text before the row repair it",
    ),
  )
  return tuple(
    Cell(
      name,
      "initial state",
      claim,
      {
        **further(size, STREAM_STEPS if mode is c.InitialState.TBTT else 1),
        "train.initial_state.mode": str(mode),
      },
      after="base",
    )
    for name, mode, claim in modes
  )


def get_grid(size="tiny") -> Grid:
  """The base and its repairs."""
  return Grid(
    size=size,
    base=base_of(size),
    cells=repairs(size),
    measures=(TEXT[size], REMEMBRANCE[size]),
    subsets={"repairs": tuple(cell.name for cell in repairs(size))},
    claim="Mamba-2 as it comes from training, before any repair",
  )


def get_config(name="tiny/base"):
  return cell_config(get_grid, name)
