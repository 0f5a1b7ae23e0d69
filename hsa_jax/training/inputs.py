"""All that a run reads: text, tokenizer, model."""

from typing import NamedTuple

from hsa_jax.config import Config
from hsa_jax.data.build import ensure_store
from hsa_jax.data.pipeline import TrainData
from hsa_jax.data.tokenizer import load_tokenizer
from hsa_jax.models import LanguageModel
from hsa_jax.training.checkpoint import RunInfo
from hsa_jax.training.state import BuildModel


class Inputs(NamedTuple):
  """All that a run reads.

  Attributes:
    build: makes the model.
    data: batches by step.
    info: what every checkpoint repeats.
    bytes_per_token: of the validation text.
  """

  build: BuildModel
  data: TrainData
  info: RunInfo
  bytes_per_token: float


def open_inputs(cfg: Config) -> Inputs:
  """Tokenizer, token store (made first if it can be) and model of a config.

  Raises:
    DataError: with one line that says what to do.
  """
  tokenizer = load_tokenizer(cfg.data.tokenizer)
  store = ensure_store(cfg.data)
  return Inputs(
    build=lambda rngs: LanguageModel(cfg.model, rngs=rngs),
    data=TrainData(cfg, store, tokenizer),
    info=RunInfo(cfg, tokenizer.spec, tokenizer.fingerprint),
    bytes_per_token=store.bytes_per_token("valid"),
  )
