"""The third stage of `ruler_tiny`: longer chains at half the rate.

Run:      python train.py --config=configs/ruler_tiny_chains.py --workdir=runs/ruler_tiny_chains
Needs:    runs/ruler_tiny_sft, trained by configs/ruler_tiny_sft.py
All:      make ruler-tiny
Evaluate: python eval.py --checkpoint=runs/ruler_tiny_chains --suites=hsa_ruler --tasks=s_niah,mk_mq,vt,vt_last --lengths=1K,4K,64K,1M

Names that are found by numbers come last: after the second stage VT still picks
the wrong chain in one row of four.
"""

import dataclasses

from configs import ruler_tiny
from configs.ruler_tiny import NOISE, pairs, row
from hsa_jax import config as c
from hsa_jax.config import StageConfig, Task

STAGES = (
  StageConfig(
    name="chains",
    num_steps=1500,
    seq_len=704,
    batch_size=6,
    sources=(
      row(0.1, Task.NIAH, 8, 8),
      NOISE,
      row(0.2, Task.MK_MQ, 6, 6),
      pairs(0.2, 8),
      row(0.3, Task.VT, 12, 4),
      row(0.15, Task.VT, 6, 2),
    ),
  ),
)


def build() -> c.Config:
  """The configuration."""
  cfg = ruler_tiny.build(STAGES)
  train = dataclasses.replace(
    cfg.train, init_from="runs/ruler_tiny_sft", top_k_schedule=()
  )
  optimizer = dataclasses.replace(
    cfg.optimizer, learning_rate=1.5e-3, muon_learning_rate=0.01
  )
  return dataclasses.replace(cfg, train=train, optimizer=optimizer)


def get_config():
  return c.to_config_dict(build())
