"""Learns a byte-level BPE vocabulary from text.

Any text round-trips: the alphabet is the 256 bytes, so nothing is unknown.
Every digit is a token of its own, so that a number of n digits has n tokens
whatever its value, and no value is easier to name than another. The same text
gives the same file, byte for byte.
"""

from collections.abc import Iterable

from hsa_jax.data.errors import TokenizerError
from hsa_jax.data.tokenizer import END_OF_TEXT, PADDING, import_tokenizers

SPECIAL = (END_OF_TEXT, PADDING)  # ids 0 and 1
MIN_VOCAB = 256 + len(SPECIAL)
MAX_VOCAB = 1 << 20


def check_vocab(vocab_size: int) -> None:
  """Refuses a size that no vocabulary of bytes and merges can have.

  Raises:
    TokenizerError: naming the nearest size that works.
  """
  if not MIN_VOCAB <= vocab_size <= MAX_VOCAB:
    nearest = min(max(vocab_size, MIN_VOCAB), MAX_VOCAB)
    raise TokenizerError(
      f"--vocab={vocab_size}: must be between {MIN_VOCAB} (256 bytes and"
      f" {' and '.join(SPECIAL)}) and {MAX_VOCAB}; nearest: {nearest}"
    )


def train_bpe(texts: Iterable[str], *, vocab_size: int) -> str:
  """A `tokenizer.json` learned from texts; needs the package `tokenizers`.

  Args:
    texts: read once, one after the other; a merge never crosses two of them.
    vocab_size: ids, special ones included. A small text may not have that many
      pairs of tokens to merge: then the vocabulary is smaller.

  Returns:
    The content of the file.

  Raises:
    TokenizerError: no package, or a size out of range.
  """
  check_vocab(vocab_size)
  tokenizers = import_tokenizers("tokenizer train")
  pre_tokenizers = tokenizers.pre_tokenizers
  inner = tokenizers.Tokenizer(tokenizers.models.BPE())
  inner.pre_tokenizer = pre_tokenizers.Sequence(
    [
      pre_tokenizers.Digits(individual_digits=True),
      pre_tokenizers.ByteLevel(add_prefix_space=False),
    ]
  )
  inner.decoder = tokenizers.decoders.ByteLevel()
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=vocab_size,
    special_tokens=list(SPECIAL),
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  inner.train_from_iterator(texts, trainer)
  return inner.to_str(pretty=True)
