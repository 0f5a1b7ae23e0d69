"""The quickstart with stick-breaking attention over the whole context.

Run:      python train.py --config=configs/stick_breaking_tiny.py --workdir=runs/stick_breaking_tiny
Evaluate: python eval.py --checkpoint=runs/stick_breaking_tiny --lengths=256,1K,4K

As `configs/full_rope_tiny.py`. The nearest key takes its share first, so there
is an order and no position; what a model learns at one length means the same at
another.
"""

from configs import full_rope_tiny
from hsa_jax import config as c

STICK = c.LayerConfig(mixer=c.Mixer.STICK_BREAKING, position=c.Position.NONE)


def get_config():
  return c.to_config_dict(full_rope_tiny.build(STICK))
