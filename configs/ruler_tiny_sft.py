"""The second stage of `ruler_tiny`: rows crowded with keys.

Run:      python train.py --config=configs/ruler_tiny_sft.py --workdir=runs/ruler_tiny_sft
Needs:    runs/ruler_tiny, trained by configs/ruler_tiny.py
All:      make ruler-tiny

Eight keys in a row and all of them asked for: whoever reads the wrong chunk is
wrong seven times out of eight. Names find numbers first, then numbers names.
"""

import dataclasses

from configs import ruler_tiny
from configs.ruler_tiny import NOISE, pairs, row
from hsa_jax import config as c
from hsa_jax.config import SourceConfig, StageConfig, Task

TEXT = SourceConfig(weight=0.05)
STAGES = (
  StageConfig(
    name="keys",
    num_steps=300,
    seq_len=704,
    batch_size=6,
    sources=(
      row(0.35, Task.NIAH, 8, 8),
      row(0.25, Task.MK_MQ, 6, 6),
      pairs(0.25, 8),
      row(0.1, Task.VT, 6, 2),
      TEXT,
    ),
  ),
  StageConfig(
    name="chains",
    num_steps=700,
    seq_len=704,
    batch_size=6,
    sources=(
      row(0.1, Task.NIAH, 8, 8),
      NOISE,
      row(0.15, Task.MK_MQ, 6, 6),
      pairs(0.4, 8),
      row(0.3, Task.VT, 12, 4),
    ),
  ),
)


def build() -> c.Config:
  """The configuration."""
  cfg = ruler_tiny.build(STAGES)
  train = dataclasses.replace(
    cfg.train, init_from="runs/ruler_tiny", top_k_schedule=()
  )
  return dataclasses.replace(cfg, train=train)


def get_config():
  return c.to_config_dict(build())
