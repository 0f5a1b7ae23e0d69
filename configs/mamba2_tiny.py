"""The quickstart with Mamba-2 layers in place of windows and memory.

Run:      python train.py --config=configs/mamba2_tiny.py --workdir=runs/mamba2_tiny
Evaluate: python eval.py --checkpoint=runs/mamba2_tiny --lengths=256,1K,4K

Twelve layers without MLPs, as published ones are; the parameters of
`configs/quickstart.py` within 1%, its data and its recipe. What it remembers has
one size for all contexts: 0.42 MiB.
"""

import dataclasses

from configs import full_rope_tiny
from hsa_jax import config as c

MAMBA = c.LayerConfig(mixer=c.Mixer.MAMBA2, mlp=c.Mlp.NONE)
SIZES = c.Mamba2Config(head_dim=32, state_dim=32, chunk_size=16)


def build() -> c.Config:
  """The configuration; those with other initial states start from it."""
  cfg = full_rope_tiny.build(MAMBA, depth=12)
  model = dataclasses.replace(cfg.model, mamba2=SIZES)
  return dataclasses.replace(cfg, model=model)


def get_config():
  return c.to_config_dict(build())
