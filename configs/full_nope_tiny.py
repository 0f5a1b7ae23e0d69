"""The quickstart with full attention without positions (NoPE).

Run:      python train.py --config=configs/full_nope_tiny.py --workdir=runs/full_nope_tiny
Evaluate: python eval.py --checkpoint=runs/full_nope_tiny --lengths=256,1K,4K

As `configs/full_rope_tiny.py`; that a token comes after another one shows in
the causal mask alone.
"""

from configs import full_rope_tiny
from hsa_jax import config as c

NOPE = c.LayerConfig(mixer=c.Mixer.FULL, position=c.Position.NONE)


def get_config():
  return c.to_config_dict(full_rope_tiny.build(NOPE))
