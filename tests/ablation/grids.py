"""A grid small enough to be run in tests."""

import dataclasses

from hsa_jax import config as c
from hsa_jax.ablation import Cell, Grid, Measure, Undefined

HSA = c.HsaConfig(
  num_groups=1,
  chunk_size=8,
  top_k=2,
  num_memory_heads=1,
  landmark_dim=16,
  encoder_layers=1,
  encoder_mlp_dim=32,
)
MODEL = c.ModelConfig(
  vocab_size=264,
  embed_dim=32,
  num_lower_layers=1,
  num_upper_layers=1,
  num_heads=2,
  num_kv_heads=2,
  head_dim=16,
  mlp_dim=48,
  window_size=16,
  init_scale=0.1,
  hsa=HSA,
)
MEAN = {"model.hsa.landmark": "mean"}
NONE = {"model.hsa.encoder_layers": 0, **MEAN}
CELLS = (
  Cell("A1-none", "encoder", "no encoder", NONE, matched=True),
  Cell("A1-two", "encoder", "two layers", {"model.hsa.encoder_layers": 2}),
  Cell("A2-mean", "landmark", "mean", MEAN, matched=True),
)


def base(store: str = "data/none", steps: int = 4) -> c.Config:
  """A base of a few steps."""
  stage = c.StageConfig(num_steps=steps, seq_len=160, batch_size=2)
  return c.Config(
    model=MODEL,
    data=c.DataConfig(store=store, stages=(stage,)),
    optimizer=c.OptimizerConfig(warmup_steps=1),
    train=c.TrainConfig(checkpoint_every=1, log_every=1, eval_batches=1),
  )


def grid(**changes) -> Grid:
  """A valid grid; fields of it can be replaced."""
  made = Grid(
    size="test",
    base=base(),
    cells=CELLS,
    measures=(
      Measure("256", "2", suites="hsa_ruler", tasks="s_niah"),
      Measure("512", "1", "hsa_ruler", "s_niah", cells=("A2",)),
    ),
    subsets={"landmarks": ("A2",)},
    undefined=(Undefined("A4-cls", "encoder", "no encoder", {**NONE, **CLS}),),
  )
  return dataclasses.replace(made, **changes)


CLS = {"model.hsa.landmark": "cls"}
