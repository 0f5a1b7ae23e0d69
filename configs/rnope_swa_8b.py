"""RNoPE-SWA at 8B parameters (arXiv 2501.18795), to be estimated and launched.

Run:      python train.py --config=configs/rnope_swa_8b.py --workdir=runs/rnope_swa_8b
Estimate: python -m hsa_jax.cli.estimate --config=configs/rnope_swa_8b.py --topology=v5p:8x8x8

Published: 8B parameters; a pattern of three windows of 4096 keys with RoPE of
base 10,000 and one full layer without positions; no norm of queries and keys;
5T tokens of pre-training. Published of its descendant Command R7B, and taken
from there: 32 layers of width 4096, 32 query and 8 key heads of 128, MLP 14336,
256,000 ids, tied embeddings, attention and MLP side by side behind one
LayerNorm without bias, logits times 0.25, rows of 8192 tokens. The weights of
Command R7B itself, whose base of RoPE is 50,000, are read by
`python -m hsa_jax.cli.load_hf` (docs/layers.md).

Not published, and chosen here: optimizer, learning rate, batch, number of steps
(a token count of its own, not the 5T), data.
"""

from hsa_jax import config as c

LOCAL = c.LayerConfig(position=c.Position.RELATIVE_ROPE)
NOPE = c.LayerConfig(mixer=c.Mixer.FULL, position=c.Position.NONE)


def build() -> c.Config:
  """The configuration."""
  model = c.ModelConfig(
    vocab_size=256_000,
    embed_dim=4096,
    num_lower_layers=32,
    num_upper_layers=0,
    num_heads=32,
    num_kv_heads=8,
    head_dim=128,
    mlp_dim=14_336,
    window_size=4096,
    rope_theta=10_000.0,
    qk_norm=False,
    norm_eps=1e-5,
    compute_dtype="bfloat16",
    remat=c.Remat.BLOCK,
    layers=(LOCAL, LOCAL, LOCAL, NOPE),
    block=c.BlockForm.PARALLEL,
    norm=c.Norm.LAYER,
    logit_scale=0.25,
    hsa=c.HsaConfig(num_groups=0),
  )
  stage = c.StageConfig(num_steps=100_000, seq_len=8192, batch_size=512)
  return c.Config(
    model=model,
    data=c.DataConfig(
      corpus="files",
      store="data/web",
      tokenizer="hf:data/tokenizer.json",
      stages=(stage,),
    ),
    optimizer=c.OptimizerConfig(learning_rate=3e-4, warmup_steps=2_000),
    train=c.TrainConfig(checkpoint_every=1_000),
    mesh=c.MeshConfig(data=1, fsdp=-1),
  )


def get_config():
  return c.to_config_dict(build())
