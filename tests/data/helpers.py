"""Small corpora and stores for the tests of this room."""

import numpy as np

from hsa_jax.data.corpora import Corpus, Document
from hsa_jax.data.store import build_store
from hsa_jax.data.tokenizer import load_tokenizer

SIZES = {"train": (4_000, 2_500), "valid": (1_500,), "test": (3_000, 700)}


def make_text(size: int, seed: int) -> str:
  """`size` random lower-case letters and spaces."""
  rng = np.random.default_rng(seed)
  letters = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz   ", np.uint8)
  return letters[rng.integers(0, len(letters), size)].tobytes().decode()


def make_corpus(seed: int = 0) -> Corpus:
  docs = []
  for split, sizes in SIZES.items():
    for size in sizes:
      text = make_text(size, seed + len(docs))
      title = f"{split}-{size}"
      docs.append(Document(title, split, size, lambda text=text: text))
  return Corpus("files", f"seed {seed}", tuple(docs))


def make_store(path, seed: int = 0):
  return build_store(make_corpus(seed), load_tokenizer("byte"), path)
