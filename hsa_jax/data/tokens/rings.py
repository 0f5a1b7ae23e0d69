"""What surrounds the pieces of a sample."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from hsa_jax.config.fields import Haystack
from hsa_jax.data.tokenizer import Tokenizer

NOISE = (  # RULER's filler
  "The grass is green. The sky is blue. The sun is yellow. Here we go."
  " There and back again.\n"
)
_RANDOM_PERIOD = 1 << 16


class Haystacks(NamedTuple):
  """Token sequences that haystacks are cut from, each read as a ring.

  Attributes:
    text: tokens of one split of the store.
    noise: one period of RULER's repeated sentences.
  """

  text: np.ndarray
  noise: np.ndarray

  def of(self, kind: Haystack) -> np.ndarray:
    """The ring of a kind; `Haystack.RANDOM` has none of its own."""
    return self.text if kind is Haystack.TEXT else self.noise


def make_haystacks(text: np.ndarray, tokenizer: Tokenizer) -> Haystacks:
  """Rings of both kinds; `text` is the split to cut from."""
  return Haystacks(text, tokenizer.encode(NOISE))


def ordinary_ids(tokenizer: Tokenizer) -> Int[np.ndarray, " n"]:
  """All ids but the special ones, int32, ascending."""
  special = (tokenizer.eos_id, tokenizer.pad_id)
  ids = np.arange(tokenizer.vocab_size, dtype=np.int32)
  return ids[~np.isin(ids, special)]


def random_ring(
  rng: np.random.Generator, ids: Int[np.ndarray, " n"], length: int
) -> Int[np.ndarray, " m"]:
  """Uniform draws from `ids`, enough for `length` tokens, at most 65,536."""
  size = min(max(length, 1), _RANDOM_PERIOD)
  return ids[rng.integers(0, len(ids), size)]
