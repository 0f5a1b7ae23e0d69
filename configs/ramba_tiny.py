"""The quickstart as RAMba: Mamba-2 below and above the chunk memory.

Run:      python train.py --config=configs/ramba_tiny.py --workdir=runs/ramba_tiny
Evaluate: python eval.py --checkpoint=runs/ramba_tiny --lengths=256,1K,4K

Five layers below and four above one read, as in arXiv 2504.16795: no sliding
windows, no positions outside the chunk encoder, a read that joins the stream
without an MLP, stick-breaking weights, the mean of a chunk as its landmark. The
parameters of `configs/quickstart.py` within 1%, its data and its recipe.
"""

import dataclasses

from configs import mamba2_tiny, quickstart
from hsa_jax import config as c


def build() -> c.Config:
  """The configuration."""
  cfg = quickstart.build()
  hsa = dataclasses.replace(
    cfg.model.hsa,
    landmark=c.Landmark.MEAN,
    weighting=c.Weighting.STICK_BREAKING,
    residual=c.Residual.PLAIN,
  )
  model = dataclasses.replace(
    cfg.model,
    num_lower_layers=5,
    num_upper_layers=4,
    layers=(mamba2_tiny.MAMBA,),
    mamba2=mamba2_tiny.SIZES,
    hsa=hsa,
  )
  return dataclasses.replace(cfg, model=model)


def get_config():
  return c.to_config_dict(build())
