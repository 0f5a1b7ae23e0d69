"""The quickstart with full attention and RoPE in place of windows and memory.

Run:      python train.py --config=configs/full_rope_tiny.py --workdir=runs/full_rope_tiny
Evaluate: python eval.py --checkpoint=runs/full_rope_tiny --lengths=256,1K,4K
YaRN:     python eval.py --checkpoint=runs/full_rope_tiny --lengths=256,1K,4K
            --override=model.rope.factor=4,model.rope.original_length=1024
            --workdir=runs/full_rope_tiny/eval_yarn

Five layers, the parameters of `configs/quickstart.py` within 1%, its data and
its recipe. Llama's attention: the baseline whose angles, beyond the 1024 tokens
of its longest rows, the model has never seen.
"""

import dataclasses

from configs import quickstart
from hsa_jax import config as c

ROPE = c.LayerConfig(mixer=c.Mixer.FULL, position=c.Position.ABSOLUTE_ROPE)


def build(*layers: c.LayerConfig, depth: int = 5, mlp_dim: int = 516):
  """The quickstart with a pattern of layers and no memory."""
  cfg = quickstart.build()
  model = dataclasses.replace(
    cfg.model,
    num_lower_layers=depth,
    num_upper_layers=0,
    mlp_dim=mlp_dim,
    layers=layers,
    hsa=dataclasses.replace(cfg.model.hsa, num_groups=0),
  )
  return dataclasses.replace(cfg, model=model)


def get_config():
  return c.to_config_dict(build(ROPE))
