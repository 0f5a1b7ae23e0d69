"""The quickstart with gated linear attention in place of windows and memory.

Run:      python train.py --config=configs/gla_tiny.py --workdir=runs/gla_tiny
Evaluate: python eval.py --checkpoint=runs/gla_tiny --lengths=256,1K,4K

Five layers with MLPs, the parameters of `configs/quickstart.py` within 1%, its
data and its recipe (arXiv 2312.06635 for the layer).
"""

from configs import full_rope_tiny
from hsa_jax import config as c

GLA = c.LayerConfig(mixer=c.Mixer.GLA)


def get_config():
  return c.to_config_dict(full_rope_tiny.build(GLA, mlp_dim=508))
