"""The quickstart as RNoPE-SWA: three windows with RoPE, one full layer without.

Run:      python train.py --config=configs/rnope_swa_tiny.py --workdir=runs/rnope_swa_tiny
Evaluate: python eval.py --checkpoint=runs/rnope_swa_tiny --lengths=256,1K,4K

The hybrid of arXiv 2501.18795 at the size of the quickstart: windows see to
what is near, layers without positions fetch what is far. Eight layers make two
periods; their MLPs are narrower, so that the parameters are those of
`configs/quickstart.py` within 1%.
"""

from configs import full_rope_tiny
from hsa_jax import config as c

LOCAL = c.LayerConfig(position=c.Position.RELATIVE_ROPE)
NOPE = c.LayerConfig(mixer=c.Mixer.FULL, position=c.Position.NONE)


def get_config():
  cfg = full_rope_tiny.build(LOCAL, LOCAL, LOCAL, NOPE, depth=8, mlp_dim=258)
  return c.to_config_dict(cfg)
