"""Sentences of books as one ring of tokens: what BABILong hides facts in."""

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from hsa_jax.data.babi.sentences import split_sentences
from hsa_jax.data.errors import DataError
from hsa_jax.data.store import TokenStore
from hsa_jax.data.tokenizer import Tokenizer

MIN_TOKENS = 10  # of a sentence; shorter ones are dropped


class Background(NamedTuple):
  """Whole sentences, read as a ring.

  Attributes:
    tokens: of all sentences, each encoded with a space before it.
    starts: int64, index of the first token of each sentence.
  """

  tokens: Int[np.ndarray, " n"]
  starts: Int[np.ndarray, " k"]

  def offset(self, sentence: int) -> int:
    """Index of a sentence on the unrolled ring; any number counts."""
    turns, k = divmod(sentence, len(self.starts))
    return turns * len(self.tokens) + int(self.starts[k])

  def sentence_at(self, offset: int) -> int:
    """The first sentence that starts at `offset` or later, unrolled."""
    turns, rest = divmod(offset, len(self.tokens))
    k = int(np.searchsorted(self.starts, rest, side="left"))
    return turns * len(self.starts) + k

  def sentence(self, number: int) -> Int[np.ndarray, " m"]:
    """Tokens of one sentence."""
    start = self.offset(number % len(self.starts))
    stop = self.offset(number % len(self.starts) + 1)
    return self.tokens[start:stop]


def make_background(
  texts: Iterable[str], tokenizer: Tokenizer, *, where: str
) -> Background:
  """The sentences of whole texts.

  The first and the last of each text are left out, and those under ten tokens.

  Args:
    texts: one work each.
    tokenizer: encodes each sentence alone, after a space.
    where: what the texts are, for the message.

  Raises:
    DataError: no sentence is left.
  """
  sentences = [
    ids.astype(np.min_scalar_type(tokenizer.vocab_size - 1))
    for text in texts
    for sentence in list(split_sentences(text))[1:-1]
    for ids in (tokenizer.encode(f" {sentence}"),)
    if len(ids) >= MIN_TOKENS
  ]
  if not sentences:
    raise DataError(
      f"{where}: no sentence of {MIN_TOKENS} tokens between two others; the"
      " background of babilong needs prose with full stops: use a store made"
      " from books, or give a folder of texts with --babilong-books"
    )
  starts = np.cumsum([0, *map(len, sentences[:-1])])
  return Background(np.concatenate(sentences), starts)


@functools.lru_cache(maxsize=4)
def store_background(
  store: TokenStore, tokenizer: Tokenizer, split: str
) -> Background:
  """The sentences of one split of a store; read once per process.

  Raises:
    DataError: no sentence in it.
  """
  texts = map(tokenizer.decode, store.documents(split))
  where = f"{store.path}: split {split!r}"
  return make_background(texts, tokenizer, where=where)


@functools.lru_cache(maxsize=1)
def folder_background(folder: str, tokenizer: Tokenizer) -> Background:
  """The sentences of all `*.txt` files in a folder; read once per process.

  Raises:
    DataError: no such files, not UTF-8, or no sentence in them.
  """
  files = sorted(Path(folder).expanduser().glob("*.txt"))
  if not files:
    raise DataError(
      f"--babilong-books={folder}: no *.txt file there; give a folder with one"
      " text file per book"
    )
  texts = map(_read, files)
  return make_background(texts, tokenizer, where=f"--babilong-books={folder}")


def _read(file: Path) -> str:
  try:
    return file.read_text(encoding="utf-8")
  except UnicodeDecodeError as e:
    raise DataError(
      f"{file}: not UTF-8 at byte {e.start}; convert the file first"
    ) from e
