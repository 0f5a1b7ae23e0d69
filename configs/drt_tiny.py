"""The quickstart as DRT: landmark tokens retrieve, once per chunk.

Run:      python train.py --config=configs/drt_tiny.py --workdir=runs/drt_tiny
Evaluate: python eval.py --checkpoint=runs/drt_tiny --lengths=256,4K,64K
Twice:    --config=configs/drt_tiny.py:2 retrieves in both upper layers
          (`configs/drt_tiny_g2.py`)

Grouped cross attention (arXiv 2410.01651) at the size, data and recipe of
`configs/quickstart.py`, with its MLPs narrowed to the same parameters within 1%.
Two layers are below the memory and two above, each with a window and a read;
both read what one landmark found.
"""

import dataclasses

from configs import quickstart
from hsa_jax import config as c


def build(retrievals: int = 1) -> c.Config:
  """The quickstart with the memory and the windows of DRT.

  Args:
    retrievals: of the two upper layers; with 1 the second reads what the first
      retrieved.
  """
  cfg = quickstart.build()
  hsa = dataclasses.replace(
    cfg.model.hsa,
    num_groups=2,
    groups_per_retrieval=2 // retrievals,
    chunk_size=15,
    num_memory_heads=cfg.model.num_heads,
    landmark=c.Landmark.TOKEN,
    landmark_projection=False,
    retrieval_heads=c.RetrievalHeads.SINGLE,
    tokens_per_retrieval=15,
    encoder_layers=1,
    encoder_prenorm=True,
    selection_noise=c.Noise.GUMBEL,
    sink=1,
    qk_norm=False,
    block_window=True,
  )
  model = dataclasses.replace(
    cfg.model,
    num_upper_layers=0,
    mlp_dim=452,
    position=c.Position.ALIBI,
    qk_norm=False,
    hsa=hsa,
  )
  return dataclasses.replace(cfg, model=model)


def get_config(retrievals: str = "1"):
  return c.to_config_dict(build(int(retrievals)))
