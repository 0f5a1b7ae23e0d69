"""The token-level RULER tasks on real text, for a CPU: the first of three stages.

Run:      python train.py --config=configs/ruler_tiny.py --workdir=runs/ruler_tiny
Check:    python train.py --config=configs/ruler_tiny.py --workdir=runs/ruler_tiny --check
All:      make ruler-tiny

Needs its tokenizer, which `make ruler-tiny` learns first: in bytes a question is
longer than the window. Then ruler_tiny_sft and ruler_tiny_chains go on from here.

The quickstart's model with longer chunks and windows, because VT asks for a name
that stands before the value it is found by, and with a memory head per kind of
answer. Alone this stage finds every needle, copies it, and does not tell two keys
apart. docs/recipe.md has the trials.
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


def pairs(weight, needles):
  """Rows of variables with a number each, all asked for: VT without hops."""
  rows = row(weight, Task.VT, needles, needles)
  return dataclasses.replace(rows, chain_length=1)


TOKENIZER = "data/tokenizers/sotu-1k.json"
TEXT = SourceConfig(weight=0.1)
NOISE = row(0.05, Task.NIAH, 1, 1, Haystack.NOISE)
STAGES = (
  StageConfig(
    name="names",
    num_steps=220,
    seq_len=192,
    batch_size=24,
    sources=(pairs(0.9, 1), TEXT),
  ),
  StageConfig(
    name="numbers",
    num_steps=250,
    seq_len=192,
    batch_size=24,
    sources=(row(0.65, Task.NIAH, 1, 1), pairs(0.25, 1), TEXT),
  ),
  StageConfig(
    name="two",
    num_steps=250,
    seq_len=256,
    batch_size=18,
    sources=(
      row(0.25, Task.NIAH, 1, 1),
      row(0.4, Task.MK_MQ, 2, 2),
      pairs(0.25, 1),
      TEXT,
    ),
  ),
  StageConfig(
    name="few",
    num_steps=1_000,
    seq_len=512,
    batch_size=8,
    sources=(
      row(0.1, Task.NIAH, 1, 1),
      row(0.15, Task.NIAH, 3, 3),
      row(0.1, Task.MK_MQ, 2, 2),
      row(0.2, Task.MK_MQ, 4, 4),
      pairs(0.1, 4),
      row(0.1, Task.VT, 3, 1),
      row(0.15, Task.VT, 6, 2),
      TEXT,
    ),
  ),
  StageConfig(
    name="many",
    num_steps=1_000,
    seq_len=1024,
    batch_size=4,
    sources=(
      row(0.1, Task.NIAH, 4, 4),
      row(0.1, Task.NIAH, 1, 1),
      NOISE,
      row(0.3, Task.MK_MQ, 6, 6),
      row(0.35, Task.VT, 6, 2),
      TEXT,
    ),
  ),
  StageConfig(
    name="sft",
    num_steps=600,
    seq_len=1024,
    batch_size=4,
    sources=(
      row(0.1, Task.NIAH, 1, 1),
      NOISE,
      row(0.35, Task.MK_MQ, 6, 2),
      row(0.2, Task.VT, 6, 2),
      row(0.2, Task.VT, 6, 1),
      TEXT,
    ),
  ),
)


def build(stages=STAGES) -> c.Config:
  """The configuration."""
  cfg = quickstart.build(stages)
  hsa = dataclasses.replace(
    cfg.model.hsa, chunk_size=32, top_k=8, num_memory_heads=4, landmark_dim=256
  )
  model = dataclasses.replace(
    cfg.model, vocab_size=1024, window_size=64, hsa=hsa
  )
  data = dataclasses.replace(
    cfg.data, store="data/sotu-1k", tokenizer=f"hf:{TOKENIZER}"
  )
  train = dataclasses.replace(
    cfg.train, checkpoint_every=300, top_k_schedule=((0, 4), (720, 8))
  )
  return dataclasses.replace(cfg, model=model, data=data, train=train)


def get_config():
  return c.to_config_dict(build())
