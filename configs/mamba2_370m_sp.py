"""State passing for a finished Mamba-2 of 370M parameters (arXiv 2507.02782).

Run:      python train.py --config=configs/mamba2_370m_sp.py --workdir=runs/mamba2_370m_sp --config.train.init_from=runs/mamba2_370m
Others:   --config.train.initial_state.mode=fitted_noise, or random_noise
          --config=configs/mamba2_370m_sp.py:tbtt, whose rows go on through the text
Expect:   not measured here. Published for the official checkpoint: perplexity
          at 131K tokens 7.7 after state passing, 12.2 before; at 2048 it is 7.8.

Published: 500 further steps, about 0.1% of the pre-training, on rows of 2048
tokens; each begins with the state that its row of the step before ended with,
and no gradient goes through it.

Not published, and chosen here: learning rate (a tenth of the peak), warm-up,
rows; that the tails of the causal filters are passed with the states; with
`tbtt`, for how many steps a row goes on.
"""

import dataclasses

from configs import mamba2_370m
from hsa_jax import config as c


def build(mode=c.InitialState.STATE_PASSING) -> c.Config:
  """The configuration."""
  cfg = mamba2_370m.build()
  (stage,) = cfg.data.stages
  stage = dataclasses.replace(
    stage,
    name="post_train",
    num_steps=500,
    stream_steps=64 if mode is c.InitialState.TBTT else 1,
  )
  return dataclasses.replace(
    cfg,
    data=dataclasses.replace(cfg.data, stages=(stage,)),
    optimizer=dataclasses.replace(
      cfg.optimizer, learning_rate=1.5e-4, warmup_steps=50
    ),
    train=dataclasses.replace(
      cfg.train,
      checkpoint_every=100,
      eval_every=100,
      initial_state=c.InitialStateConfig(mode=mode),
    ),
  )


def get_config(mode="state_passing"):
  return c.to_config_dict(build(c.InitialState(mode)))
