"""The ablation grid by size: bases, measures, models without a memory."""

import dataclasses

from configs import paper_240m, quickstart
from configs.ruler_tiny import row
from hsa_jax import config as c
from hsa_jax.ablation import Cell, Measure
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
FINALISTS = ("base", "A0", "B2")


def measures(near: Measure, position: Measure, far: tuple[str, str]):
  """Of every cell, and a needle far beyond that of the finalists."""
  lengths, samples = far
  final = Measure(
    lengths, samples, suites="hsa_ruler", tasks="s_niah", cells=FINALISTS
  )
  return (near, position, final)


def by_position(length: str, samples: str) -> Measure:
  """Perplexity in whole windows."""
  return Measure(length, samples, suites="ppl", tasks="by_position")


MEASURES = {
  "tiny": measures(
    Measure("1K,4K,16K,64K,256K", "32,16K:16,64K:6,256K:3"),
    by_position("16K", "8"),
    ("1M", "4"),
  ),
  "smoke": measures(Measure("1K,2K", "4"), by_position("1K", "2"), ("4K", "2")),
  "small": measures(
    Measure("2K,8K,32K,128K,512K", "50,32K:20,128K:10"),
    by_position("32K", "8"),
    ("1M,4M", "10"),
  ),
  "paper": measures(
    Measure("4K,16K,64K,256K,1M", "50,64K:20,1M:10"),
    by_position("64K", "8"),
    ("16M,32M", "2"),
  ),
}


def baselines(base):
  """Other models with the parameters, the data and the steps of the base."""
  length = base.data.stages[-1].seq_len
  yarn = f"model.rope.factor=16,model.rope.original_length={length}"
  rope = c.LayerConfig(c.Mixer.FULL, c.Position.ABSOLUTE_ROPE)
  nope = c.LayerConfig(c.Mixer.FULL, c.Position.NONE)
  stick = c.LayerConfig(c.Mixer.STICK_BREAKING, c.Position.NONE)
  return (
    _without_memory(base, "B1-rope", "full attention is enough", rope),
    _without_memory(
      base, "B1-yarn", "so it is with YaRN", rope, f"--override={yarn}"
    ),
    _without_memory(base, "B2-window", "a sliding window is enough"),
    _without_memory(base, "B3-stick", "stick-breaking is enough", stick),
    _without_memory(base, "B7-nope", "no positions are needed", nope),
  )


def _without_memory(base, name, claim, layer=None, *flags):
  """A model of one kind of layers, two of them in place of the memory."""
  model = base.model
  return Cell(
    name,
    "baseline",
    claim,
    {
      "model.hsa.num_groups": 0,
      "model.num_lower_layers": model.num_lower_layers + 1,
      "model.num_upper_layers": model.num_upper_layers + 1,
      **({"model.layers": (layer,)} if layer else {}),
    },
    matched=True,
    eval_flags=flags,
  )
