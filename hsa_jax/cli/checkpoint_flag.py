"""What `--checkpoint` names: a model, and the tokenizer it was trained with."""

import pathlib

from hsa_jax.config import Config
from hsa_jax.data.tokenizer import Tokenizer, load_tokenizer
from hsa_jax.training.checkpoint import CheckpointError, CheckpointMeta


def open_tokenizer(
  folder: pathlib.Path, cfg: Config, meta: CheckpointMeta
) -> Tokenizer:
  """The tokenizer of a checkpoint; touches no device.

  Raises:
    CheckpointError: if the one found now has another vocabulary.
    TokenizerError: if there is none.
  """
  tokenizer = load_tokenizer(cfg.data.tokenizer)
  if tokenizer.fingerprint != meta.tokenizer_fingerprint:
    raise CheckpointError(
      f"{folder}: trained with tokenizer {meta.tokenizer!r} of fingerprint"
      f" {meta.tokenizer_fingerprint[:12]}, the one here has"
      f" {tokenizer.fingerprint[:12]}; restore the original file"
    )
  return tokenizer
