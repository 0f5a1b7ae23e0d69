"""The quickstart with gated linear attention in place of windows and memory.

Run:      python train.py --config=configs/gla_tiny.py --workdir=runs/gla_tiny
Evaluate: python eval.py --checkpoint=runs/gla_tiny --lengths=256,1K,4K

Five layers with MLPs, the parameters of `configs/quickstart.py` within 1%, its
data and its recipe (arXiv 2312.06635 for the layer).
"""

import dataclasses

from configs import full_rope_tiny
from hsa_jax import config as c

GLA = c.LayerConfig(mixer=c.Mixer.GLA)


def build() -> c.Config:
  """The configuration."""
  cfg = full_rope_tiny.build(GLA, mlp_dim=508)
  model = dataclasses.replace(cfg.model, gla=c.GlaConfig(chunk_size=32))
  return dataclasses.replace(cfg, model=model)


def get_config():
  return c.to_config_dict(build())
