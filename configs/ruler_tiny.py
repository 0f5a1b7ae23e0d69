"""The token-level RULER tasks on real text, trained on a CPU.

Run:      python train.py --config=configs/ruler_tiny.py --workdir=runs/ruler_tiny
"""

import dataclasses

from configs import quickstart
from hsa_jax import config as c
from hsa_jax.config import Haystack, SourceConfig, StageConfig, Task


def row(weight, task, needles, asked, haystack=Haystack.TEXT):
  """Rows of one task."""
  return SourceConfig(
    weight=weight,
    task=task,
    haystack=haystack,
    num_needles=needles,
    num_questions=asked,
  )


TEXT = SourceConfig(weight=0.15)
NOISE = row(0.05, Task.NIAH, 1, 1, Haystack.NOISE)
STAGES = (
  StageConfig(
    name="english",
    num_steps=400,
    seq_len=256,
    batch_size=16,
    sources=(
      row(0.4, Task.NIAH, 1, 1),
      row(0.4, Task.VT, 3, 1),
      NOISE,
      TEXT,
    ),
  ),
  StageConfig(
    name="crowd",
    num_steps=600,
    seq_len=1024,
    batch_size=4,
    sources=(
      row(0.2, Task.NIAH, 4, 4),
      row(0.25, Task.MK_MQ, 6, 6),
      row(0.35, Task.VT, 6, 2),
      NOISE,
      TEXT,
    ),
  ),
  StageConfig(
    name="sft",
    num_steps=200,
    seq_len=1024,
    batch_size=4,
    sources=(
      row(0.25, Task.NIAH, 1, 1),
      row(0.25, Task.MK_MQ, 6, 2),
      row(0.35, Task.VT, 6, 1),
      NOISE,
      dataclasses.replace(TEXT, weight=0.1),
    ),
  ),
)


def build(stages=STAGES) -> c.Config:
  """The configuration."""
  cfg = quickstart.build(stages)
  return cfg


def get_config():
  return c.to_config_dict(build())
