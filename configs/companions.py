"""The companions: other systems with the data, the steps and the size of HSA.

List:     python -m hsa_jax.cli.sweep --config=configs/companions.py --list
Run:      python -m hsa_jax.cli.sweep --config=configs/companions.py --workdir=runs/companions --seeds=3 --run --jobs=2
Report:   python -m hsa_jax.cli.sweep --config=configs/companions.py --workdir=runs/companions --seeds=3 --report
One cell: python train.py --config=configs/companions.py:tiny/rnope --workdir=runs/rnope
          (python train.py --config=configs/companions.py is the quickstart)

Each cell is the model of a config file beside this one, whole; data, optimizer
and steps are the base's, which is `configs/quickstart.py`. Two of them are one
run: full attention with RoPE, evaluated as it is and with YaRN. docs/companions.md
says how to read it.

Sizes:    tiny   the files' own; parameters within 1% of the base
          smoke  an eighth of the width, a few steps; learns nothing
"""

import dataclasses

from configs import (
  drt_tiny,
  full_nope_tiny,
  full_rope_tiny,
  gla_tiny,
  mamba2_tiny,
  quickstart,
  quickstart_swa,
  ramba_tiny,
  rnope_swa_tiny,
  stick_breaking_tiny,
)
from hsa_jax import config as c
from hsa_jax.ablation import Cell, Grid, Measure, cell_config

SIZES = ("tiny", "smoke")
LONGEST = {"tiny": 16_384, "smoke": 2_048}  # tokens that are measured
# What full attention reads costs the square of the length; the rest go on.
FAR = ("base", "window", "mamba2", "gla", "ramba", "drt")
MEASURES = {
  "tiny": (
    Measure("256,1K,4K,16K", "32,16K:8", tasks="s_niah,by_length"),
    Measure(
      "64K,256K,1M", "4,256K:2,1M:1", tasks="s_niah,by_length", cells=FAR
    ),
    Measure(
      "1K,4K,16K",
      "8",
      suites="effective_attention",
      tasks="",
      cells=("full", "rnope"),
    ),
  ),
  "smoke": (
    Measure("256,2K", "2", tasks="s_niah,by_length"),
    Measure("4K", "1", tasks="s_niah,by_length", cells=FAR),
    Measure(
      "256",
      "2",
      suites="effective_attention",
      tasks="",
      cells=("full", "rnope"),
    ),
  ),
}

# Name, what is varied, what the comparison tests, the file of the model.
SYSTEMS = (
  (
    "full-rope",
    "full attention",
    "attention to every token, with rotary positions, finds what is far",
    full_rope_tiny,
  ),
  (
    "full-nope",
    "full attention",
    "without positions there is none to be new to",
    full_nope_tiny,
  ),
  (
    "rnope",
    "hybrid",
    "windows with RoPE and every fourth layer full, without positions",
    rnope_swa_tiny,
  ),
  (
    "stick",
    "full attention",
    "nearest first orders keys without positions",
    stick_breaking_tiny,
  ),
  ("window", "window", "a sliding window is enough", quickstart_swa),
  ("mamba2", "recurrent", "a state of constant size is enough", mamba2_tiny),
  ("gla", "recurrent", "so it is with decays by channel", gla_tiny),
  (
    "ramba",
    "hierarchical",
    "a memory of chunks between recurrent layers",
    ramba_tiny,
  ),
  ("drt", "hierarchical", "one retrieval per chunk is enough", drt_tiny),
)


def model_of(file, size: str) -> c.ModelConfig:
  """The model of a config file, as large as the size says."""
  model = c.from_dict(file.get_config(), where=file.__name__).model
  if size == "tiny":
    return model
  hsa = dataclasses.replace(
    model.hsa,
    encoder_mlp_dim=32,
    landmark_dim=16,
    num_memory_heads=min(model.hsa.num_memory_heads, 2),
  )
  return dataclasses.replace(
    model,
    embed_dim=16,
    num_heads=2,
    num_kv_heads=2,
    head_dim=8,
    mlp_dim=32,
    hsa=hsa,
  )


def base_of(size: str) -> c.Config:
  """The quickstart, or a few of its steps."""
  cfg = quickstart.build()
  cfg = dataclasses.replace(cfg, model=model_of(quickstart, size))
  if size == "tiny":
    return cfg
  stages = tuple(
    dataclasses.replace(stage, num_steps=4, batch_size=2)
    for stage in cfg.data.stages
  )
  return dataclasses.replace(
    cfg,
    data=dataclasses.replace(cfg.data, stages=stages),
    optimizer=dataclasses.replace(cfg.optimizer, warmup_steps=2),
    train=dataclasses.replace(cfg.train, checkpoint_every=4, log_every=4),
  )


def yarn(base: c.Config, size: str) -> Cell:
  """The run of `full-rope`, with its angles slowed down when it is measured."""
  trained = max(stage.seq_len for stage in base.data.stages)
  factor = LONGEST[size] // trained
  return Cell(
    "full-yarn",
    "full attention",
    "YaRN makes up for angles that were never trained",
    {"model": model_of(full_rope_tiny, size)},
    eval_flags=(
      f"--override=model.rope.factor={factor},"
      f"model.rope.original_length={trained}",
    ),
  )


def get_grid(size="tiny") -> Grid:
  """The systems of a size."""
  base = base_of(size)
  first, *others = (
    Cell(name, axis, claim, {"model": model_of(file, size)})
    for name, axis, claim, file in SYSTEMS
  )
  cells = (first, yarn(base, size), *others)
  return Grid(
    size=size,
    base=base,
    cells=cells,
    measures=MEASURES[size],
    subsets={"systems": tuple(cell.name for cell in cells)},
    claim="hierarchical sparse attention, configs/quickstart.py",
  )


def get_config(name="tiny/base"):
  return cell_config(get_grid, name)
