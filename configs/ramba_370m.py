"""RAMba at 370M parameters: Mamba-2 with a chunk memory (arXiv 2504.16795).

Run:      python train.py --config=configs/ramba_370m.py --workdir=runs/ramba_370m
Estimate: python -m hsa_jax.cli.estimate --config=configs/ramba_370m.py --topology=v5e:4x4
Expect:   not measured here: it needs an accelerator and a large corpus.

Published: 48 Mamba-2 layers of width 1024, 24 of them below the memory, then
one retrieval and three reads of it, each with eight layers behind it; chunks of
64, top 8, 16 query heads of 64 and one memory head, landmarks of 1024, one
encoder layer, stick-breaking weights, a read that joins the stream without an
MLP; the Pile with GPT-NeoX ids; 61,440 steps of 2^20 tokens, AdamW with a rate
of 2e-3 that falls to a fifth, weight decay 0.001. With memory reset: rows of two
documents of 8192 tokens, whose recurrent states begin anew every 4096 while the
memory goes on.

Unknown, and chosen here: how often a segment begins with the state of another
one and not with zeros (half the time); whether published runs took the mean of
a chunk or a learned token as its landmark (the paper says mean, later code the
token), and whether their softmax is off by one (not here). The authors report
that this model's length generalisation did not last when it was scaled up, and
advise windows below the memory instead.
"""

import dataclasses

from configs import mamba2_370m
from hsa_jax import config as c


def build() -> c.Config:
  """The configuration."""
  cfg = mamba2_370m.build()
  hsa = c.HsaConfig(
    num_groups=3,
    groups_per_retrieval=3,
    chunk_size=64,
    top_k=8,
    num_memory_heads=1,
    landmark_dim=1024,
    encoder_layers=1,
    encoder_mlp_dim=2688,
    landmark=c.Landmark.MEAN,
    weighting=c.Weighting.STICK_BREAKING,
    residual=c.Residual.PLAIN,
  )
  model = dataclasses.replace(
    cfg.model, num_lower_layers=24, num_upper_layers=24, hsa=hsa
  )
  stage = c.StageConfig(
    name="pretrain",
    num_steps=61_440,
    seq_len=16_384,
    batch_size=64,
    neg_sampling_group=2,
  )
  return dataclasses.replace(
    cfg,
    model=model,
    data=dataclasses.replace(cfg.data, stages=(stage,)),
    optimizer=c.OptimizerConfig(
      learning_rate=2e-3,
      warmup_steps=1_229,
      final_learning_rate_ratio=0.2,
      weight_decay=1e-3,
    ),
    train=dataclasses.replace(
      cfg.train,
      initial_state=c.InitialStateConfig(
        mode=c.InitialState.STATE_PASSING,
        segments=4,
        probability=0.5,
        reset_every=64,
      ),
    ),
    mesh=c.MeshConfig(fsdp=2),
  )


def get_config():
  return c.to_config_dict(build())
