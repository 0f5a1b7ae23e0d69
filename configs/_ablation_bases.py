"""The ablation grid by size: bases, measures. Cells: configs/ablation.py."""

import dataclasses

from configs import paper_240m, quickstart
from configs.ruler_tiny import row
from hsa_jax import config as c
from hsa_jax.ablation import Measure
from hsa_jax.config import Haystack, SourceConfig, StageConfig, Task

TEXT = SourceConfig(weight=0.15)


def tiny() -> c.Config:
  """Trains on one core; docs/ablation.md says how it was chosen."""
  noise = row(0.05, Task.NIAH, 1, 1, Haystack.NOISE)
  stages = (
    StageConfig(
      name="english",
      num_steps=160,
      seq_len=256,
      batch_size=16,
      sources=(row(0.8, Task.NIAH, 1, 1), noise, TEXT),
    ),
    StageConfig(
      name="crowd",
      num_steps=320,
      seq_len=1024,
      batch_size=4,
      sources=(
        row(0.25, Task.NIAH, 1, 1),
        row(0.3, Task.NIAH, 4, 4),
        row(0.25, Task.MK_MQ, 4, 4),
        noise,
        TEXT,
      ),
    ),
  )
  cfg = quickstart.build(stages)
  hsa = dataclasses.replace(cfg.model.hsa, encoder_mlp_dim=256)
  model = dataclasses.replace(cfg.model, mlp_dim=256, hsa=hsa)
  return dataclasses.replace(cfg, model=model)


def smoke() -> c.Config:
  """A few steps of a model of a quarter of the width."""
  cfg = tiny()
  last = cfg.data.stages[-1]
  stage = dataclasses.replace(last, num_steps=8, batch_size=2)
  hsa = dataclasses.replace(cfg.model.hsa, encoder_mlp_dim=64, landmark_dim=32)
  model = dataclasses.replace(
    cfg.model,
    embed_dim=32,
    num_heads=2,
    num_kv_heads=2,
    head_dim=16,
    mlp_dim=64,
    hsa=hsa,
  )
  return dataclasses.replace(
    cfg,
    model=model,
    data=dataclasses.replace(cfg.data, stages=(stage,)),
    optimizer=dataclasses.replace(cfg.optimizer, warmup_steps=2),
    train=dataclasses.replace(cfg.train, checkpoint_every=4, log_every=4),
  )


def small() -> c.Config:
  """Four times as wide, eleven times the tokens, with chains: one GPU."""
  noise = row(0.05, Task.NIAH, 1, 1, Haystack.NOISE)
  stages = (
    StageConfig(
      name="english",
      num_steps=500,
      seq_len=512,
      batch_size=16,
      sources=(row(0.8, Task.NIAH, 1, 1), noise, TEXT),
    ),
    StageConfig(
      name="crowd",
      num_steps=1_000,
      seq_len=2_048,
      batch_size=8,
      sources=(
        row(0.15, Task.NIAH, 1, 1),
        row(0.25, Task.NIAH, 8, 8),
        row(0.25, Task.MK_MQ, 6, 6),
        row(0.15, Task.VT, 6, 2),
        noise,
        TEXT,
      ),
    ),
  )
  cfg = quickstart.build(stages)
  hsa = dataclasses.replace(
    cfg.model.hsa,
    chunk_size=32,
    num_memory_heads=4,
    encoder_mlp_dim=1024,
    landmark_dim=256,
  )
  model = dataclasses.replace(
    cfg.model,
    embed_dim=512,
    num_lower_layers=4,
    num_upper_layers=2,
    num_heads=8,
    num_kv_heads=8,
    head_dim=64,
    mlp_dim=1024,
    window_size=64,
    init_scale=0.04,
    compute_dtype="bfloat16",
    hsa=hsa,
  )
  return dataclasses.replace(cfg, model=model)


def paper() -> c.Config:
  """`configs/paper_240m.py`, and 5% of needles, keys and chains in the text."""
  cfg = c.from_dict(paper_240m.get_config(), where="configs/paper_240m.py")
  return c.with_overrides(cfg, {"data.synthetic_mix": 0.05})


BASES = {"tiny": tiny, "smoke": smoke, "small": small, "paper": paper}
MEASURES = {
  "tiny": Measure("1K,4K,16K,64K,256K", "32,16K:16,64K:6,256K:3"),
  "smoke": Measure("1K,2K", "4"),
  "small": Measure("2K,8K,32K,128K,512K", "50,32K:20,128K:10"),
  "paper": Measure("4K,16K,64K,256K,1M", "50,64K:20,1M:10"),
}
FINALS = {
  "tiny": Measure("1M", "4", suites="hsa_ruler", tasks="s_niah"),
  "smoke": Measure("4K", "2", suites="hsa_ruler", tasks="s_niah"),
  "small": Measure("1M,4M", "10", suites="hsa_ruler", tasks="s_niah"),
  "paper": Measure("16M,32M", "2", suites="hsa_ruler", tasks="s_niah"),
}
