"""Mamba-2 at 370M parameters (arXiv 2405.21060).

Run:      python train.py --config=configs/mamba2_370m.py --workdir=runs/mamba2_370m
Estimate: python -m hsa_jax.cli.estimate --config=configs/mamba2_370m.py --topology=v5e:4x4
Expect:   not measured here: it needs an accelerator and a large corpus.

Published: 48 layers of width 1024 without MLPs; inner width twice that, heads of
64, one group of state 128, filters of 4 tokens, chunks of 256; tied embeddings
of 50,280 ids (GPT-NeoX); rows of 2048 tokens of the Pile.

Not established here, and chosen: initial scale, optimizer, learning rate, rows
per step and number of steps. Half a million tokens a step over 600,000 steps
are about the 300B tokens that are told of these models.
"""

from hsa_jax import config as c

MAMBA = c.LayerConfig(mixer=c.Mixer.MAMBA2, mlp=c.Mlp.NONE)


def build() -> c.Config:
  """The configuration; RAMba and state passing start from it."""
  model = c.ModelConfig(
    vocab_size=50_280,
    embed_dim=1024,
    num_lower_layers=48,
    num_upper_layers=0,
    norm_eps=1e-5,
    compute_dtype="bfloat16",
    remat=c.Remat.BLOCK,
    layers=(MAMBA,),
    hsa=c.HsaConfig(num_groups=0),
  )
  stage = c.StageConfig(
    name="pretrain", num_steps=600_000, seq_len=2_048, batch_size=256
  )
  return c.Config(
    model=model,
    data=c.DataConfig(
      corpus="files",
      store="data/pile",
      tokenizer="hf:data/neox/tokenizer.json",
      stages=(stage,),
    ),
    optimizer=c.OptimizerConfig(learning_rate=1.5e-3, warmup_steps=6_000),
    train=c.TrainConfig(checkpoint_every=1_000, eval_every=1_000),
  )


def get_config():
  return c.to_config_dict(build())
