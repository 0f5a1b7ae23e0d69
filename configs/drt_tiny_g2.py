"""`configs/drt_tiny.py` with a retrieval of its own in each upper layer.

Run:      python train.py --config=configs/drt_tiny_g2.py --workdir=runs/drt_tiny_g2
Evaluate: python eval.py --checkpoint=runs/drt_tiny_g2 --lengths=256,4K,64K

Two retrievals, one after the other: what tasks of two hops need, where the
second question depends on the first answer (arXiv 2410.01651).
"""

from configs import drt_tiny
from hsa_jax import config as c


def get_config():
  return c.to_config_dict(drt_tiny.build(retrievals=2))
