"""Fields of recurrent layers; `fields.py` puts them into the configuration."""

import dataclasses
import enum


class InitialState(enum.StrEnum):
  """What recurrent layers begin a training row with (arXiv 2507.02782)."""

  ZERO = "zero"
  RANDOM_NOISE = "random_noise"  # normal, one deviation for all layers
  FITTED_NOISE = "fitted_noise"  # normal, as final states of each head were
  STATE_PASSING = "state_passing"  # where another text ended, a step before
  TBTT = "tbtt"  # where its own text ended; see StageConfig.stream_steps


@dataclasses.dataclass(frozen=True)
class Mamba2Config:
  """Sizes of `Mixer.MAMBA2` (arXiv 2405.21060); its heads are counted here.

  The inner width is `expand * embed_dim`, cut into heads of `head_dim`; each
  head has a state of `head_dim * state_dim` numbers.
  """

  expand: int = 2
  head_dim: int = 64
  state_dim: int = 128
  num_groups: int = 1  # heads of a group write and read by the same vectors
  conv_width: int = 4  # tokens of the causal filter, the own one included
  chunk_size: int = 256  # tokens read by one matrix product; not learned
  # A new model's steps are log-uniform in step_min .. step_max, not below
  # step_floor, and its slopes uniform in slope_min .. slope_max.
  step_min: float = 1e-3
  step_max: float = 0.1
  step_floor: float = 1e-4
  slope_min: float = 1.0
  slope_max: float = 16.0


@dataclasses.dataclass(frozen=True)
class GlaConfig:
  """Sizes of `Mixer.GLA`, gated linear attention (arXiv 2312.06635)."""

  num_heads: int = 4
  expand_keys: float = 0.5  # width of all queries over embed_dim; keys alike
  expand_values: float = 1.0
  gate_rank: int = 16  # inner width of the projection that decays come from
  gate_normalizer: float = 16.0  # log-decays are divided by it
  chunk_size: int = 64  # tokens between two states; not learned


@dataclasses.dataclass(frozen=True)
class InitialStateConfig:
  """States before the first token, in training; no gradient goes into them."""

  mode: InitialState = InitialState.ZERO
  noise_std: float = 1.0  # of random_noise
  fit_decay: float = 0.99  # weight of the past in the means of fitted_noise
  probability: float = 1.0  # that a row does not begin with zeros after all
  reset_every: int = 0  # every so many steps all begin with zeros; 0: never
  # Equal parts of a row; at each of them the layers begin anew, while a memory
  # of chunks goes on over all of them (RAMba's memory reset).
  segments: int = 1
