"""The token-level RULER tasks on real text, for a CPU.

Run:      python train.py --config=configs/ruler_tiny.py --workdir=runs/ruler_tiny
Check:    python train.py --config=configs/ruler_tiny.py --workdir=runs/ruler_tiny --check
Evaluate: python eval.py --checkpoint=runs/ruler_tiny --suites=hsa_ruler --tasks=s_niah,mk_mq,vt,vt_last --lengths=1K,4K,64K,1M
Expect:   not measured to its end yet.

The quickstart's model with more slots, one more lower layer and two reads of
the memory. Four stages: one needle in English, as in the quickstart; many keys
in rows of 1024; variables in shorter rows, most of whose needles fit the slots;
at last the forms of the evaluation themselves.

VT asks backwards: a name stands before the value it is found by. It comes after
the keys for a reason: with the quickstart's shape (chunks of 16, four slots,
one read) the letters of the names stayed at chance for 190 steps of VT alone,
and for 180 steps of VT after a single needle had been learned.
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
  quickstart.STAGES[0],
  StageConfig(
    name="crowd",
    num_steps=700,
    seq_len=1024,
    batch_size=4,
    sources=(
      row(0.25, Task.NIAH, 4, 4),
      row(0.1, Task.NIAH, 2, 2),
      row(0.1, Task.NIAH, 1, 1),
      row(0.25, Task.MK_MQ, 6, 6),
      row(0.1, Task.VT, 6, 2),
      NOISE,
      TEXT,
    ),
  ),
  StageConfig(
    name="names",
    num_steps=1_200,
    seq_len=384,
    batch_size=12,
    sources=(
      row(0.35, Task.VT, 3, 1),
      row(0.25, Task.VT, 6, 2),
      row(0.15, Task.MK_MQ, 4, 2),
      row(0.1, Task.NIAH, 1, 1),
      TEXT,
    ),
  ),
  StageConfig(
    name="sft",
    num_steps=600,
    seq_len=1024,
    batch_size=4,
    sources=(
      row(0.15, Task.NIAH, 1, 1),
      row(0.25, Task.MK_MQ, 6, 2),
      row(0.2, Task.VT, 6, 2),
      row(0.2, Task.VT, 6, 1),
      NOISE,
      TEXT,
    ),
  ),
)


def build(stages=STAGES) -> c.Config:
  """The configuration."""
  cfg = quickstart.build(stages)
  hsa = dataclasses.replace(cfg.model.hsa, num_groups=2, top_k=8)
  model = dataclasses.replace(
    cfg.model, num_lower_layers=3, num_upper_layers=2, hsa=hsa
  )
  train = dataclasses.replace(cfg.train, checkpoint_every=300)
  return dataclasses.replace(cfg, model=model, train=train)


def get_config():
  return c.to_config_dict(build())
