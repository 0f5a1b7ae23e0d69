"""One retrieval or two for a question of two hops (GCA/DRT, arXiv 2410.01651).

List:     python -m hsa_jax.cli.sweep --config=configs/hops.py --list
Run:      python -m hsa_jax.cli.sweep --config=configs/hops.py --workdir=runs/hops --seeds=3 --run --jobs=2
Report:   python -m hsa_jax.cli.sweep --config=configs/hops.py --workdir=runs/hops --seeds=3 --report
One cell: python train.py --config=configs/hops.py --workdir=runs/hops_base (two retrievals)

The base is `configs/drt_tiny_g2.py`, whose upper layers retrieve one after the
other; `one` is `configs/drt_tiny.py`, which retrieves once for both. Both are
trained on the needles of suite `gca` in rows of at most 512 tokens, and asked at
up to 2,048 times that. docs/companions.md has what was found.

Sizes:    tiny   minutes a cell on one core
          smoke  a few steps; shows that everything works, learns nothing
"""

import dataclasses

from configs import drt_tiny
from hsa_jax import config as c
from hsa_jax.ablation import Cell, Grid, Measure, cell_config
from hsa_jax.data.tokens.catalog import GCA_HOPS

SIZES = ("tiny", "smoke")
TEXT = c.SourceConfig(weight=0.1)
PASSKEY = c.SourceConfig(task=c.Task.GCA_PASSKEY)
MEASURES = {
  "tiny": Measure(
    "512,4K,32K,1M", "32,32K:16,1M:4", "gca", "gca_passkey,gca_hops"
  ),
  "smoke": Measure("512,1K", "2", "gca", "gca_passkey,gca_hops"),
}


def weighed(source: c.SourceConfig, weight: float) -> c.SourceConfig:
  """The source with a share of the rows."""
  return dataclasses.replace(source, weight=weight)


def stages_of(size: str) -> tuple[c.StageConfig, ...]:
  """A passkey in short rows, then paths of two links among them."""
  first = c.StageConfig(
    name="passkey",
    num_steps=300,
    seq_len=256,
    batch_size=16,
    sources=(weighed(PASSKEY, 0.9), TEXT),
  )
  last = c.StageConfig(
    name="hops",
    num_steps=900,
    seq_len=512,
    batch_size=8,
    sources=(weighed(PASSKEY, 0.2), weighed(GCA_HOPS, 0.7), TEXT),
  )
  if size == "tiny":
    return first, last
  return (dataclasses.replace(last, num_steps=4, batch_size=2),)


def base_of(size: str) -> c.Config:
  """Two retrievals."""
  cfg = drt_tiny.build(retrievals=2)
  warmup = cfg.optimizer.warmup_steps if size == "tiny" else 2
  return dataclasses.replace(
    cfg,
    data=dataclasses.replace(cfg.data, stages=stages_of(size)),
    optimizer=dataclasses.replace(cfg.optimizer, warmup_steps=warmup),
  )


def get_grid(size="tiny") -> Grid:
  """Two retrievals and one."""
  one = Cell(
    "one",
    "retrievals",
    "one retrieval finds both links",
    {"model.hsa.groups_per_retrieval": 2},
    matched=True,
  )
  return Grid(
    size=size,
    base=base_of(size),
    cells=(one,),
    measures=(MEASURES[size],),
    subsets={"retrievals": ("one",)},
    claim="two retrievals, the second by what the first brought",
  )


def get_config(name="tiny/base"):
  return cell_config(get_grid, name)
