"""The control of the quickstart: no memory, the same parameters and data.

Run:      python train.py --config=configs/quickstart_swa.py --workdir=runs/quickstart_swa
Evaluate: python eval.py --checkpoint=runs/quickstart_swa --lengths=256,4K,64K,1M
All:      make quickstart-control

A sliding-window transformer: the same window, five layers, the MLP widened to
the parameter count of `configs/quickstart.py` within 1%. It sees 156 tokens
back, so a needle further away than that must stay at chance.
"""

import dataclasses

from configs import quickstart
from hsa_jax import config as c


def get_config():
  cfg = quickstart.build()
  model = dataclasses.replace(
    cfg.model,
    num_lower_layers=3,
    num_upper_layers=2,
    mlp_dim=516,
    hsa=dataclasses.replace(cfg.model.hsa, num_groups=0),
  )
  return c.to_config_dict(dataclasses.replace(cfg, model=model))
