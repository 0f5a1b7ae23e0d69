"""FWE: coded words with Zipf frequencies; which are the most frequent?

RULER's text and its counts, `int(N k^-2 / zeta(2))` for rank k, with the sizes
of RAMba and HiLS: words of five letters, a vocabulary of 2000. The word of rank
1 is written as dots and ignored, so the answers are ranks 2 to 4. Two things
differ from the text form, so that any stretch can be rendered alone: every
word takes the same number of tokens, dots included, and the order is a keyed
permutation. Counts are exact; slots that rounding leaves over are dots.
"""

import collections

import numpy as np
from jaxtyping import Int

from hsa_jax.config.fields import SourceConfig
from hsa_jax.data.sample import check_range
from hsa_jax.data.tokenizer import Tokenizer
from hsa_jax.data.tokens.layout import Tail, TokenSample
from hsa_jax.data.tokens.parts import Fixed, Joined, Permutation
from hsa_jax.data.tokens.rings import Haystacks

NUM_ANSWERS = 3
VOCABULARY = 2000
_LETTERS = 5
_ZETA_2 = np.pi**2 / 6
_HEAD = (
  "Read the following coded text and track the frequency of each coded word."
  " Find the three most frequently appeared coded words."
)
_QUESTION = (
  "\nQuestion: Do not provide any explanation. Please ignore the dots '....'."
  " What are the three most frequently appeared words in the above coded text?"
  " Answer: According to the coded text above, the three most frequently"
  " appeared words are:"
)
_DOTS = " ....."
_PROBES = 200
# Ranks 4 and 5 differ by at least one from here on, and so do all before them.
_MIN_SLOTS = int(np.ceil(_ZETA_2 / (1 / 16 - 1 / 25)))


class FrequentWordsTask:
  """Tokenized templates; meets `TokenTask`."""

  def __init__(self, source: SourceConfig, tokenizer: Tokenizer):
    """Finds how many tokens most coded words take; others are not drawn."""
    del source  # nothing to choose
    self._encode = tokenizer.encode
    self._head, self._question = map(tokenizer.encode, (_HEAD, _QUESTION))
    self._eos = np.array([tokenizer.eos_id], np.int32)
    probes = np.random.Generator(np.random.Philox(0))
    sizes = (len(self._encode(" " + w)) for w in _draw_words(probes, _PROBES))
    self._width = collections.Counter(sizes).most_common(1)[0][0]
    self._dots = np.resize(tokenizer.encode(_DOTS), self._width)
    tail = len(self._question) + NUM_ANSWERS * self._width + 1
    self._fixed = len(self._head) + tail
    self.min_length = self._fixed + _MIN_SLOTS * self._width

  def draw(
    self,
    rng: np.random.Generator,
    haystacks: Haystacks,
    *,
    length: int,
    depth: float | None = None,
  ) -> TokenSample:
    """Draws a sample; see `TokenTask.draw`.

    There is no haystack, and no one place of the answer: `depth` is 0.
    """
    del haystacks, depth
    slots = (length - self._fixed) // self._width
    if slots < _MIN_SLOTS:
      raise ValueError(
        f"length = {length}: coded words need {self.min_length} tokens, or the"
        " most frequent ones would tie"
      )
    keys = rng.integers(0, 1 << 63, 4).tolist()
    counts = word_counts(slots)
    words, tokens = self._draw_vocabulary(rng, len(counts) - 1)
    coded = CodedText(
      np.concatenate([[self._dots], tokens]), counts, Permutation(slots, keys)
    )
    tail = Tail()
    rest = length - self._fixed - coded.length
    tail.write(np.resize(self._dots[-1:], rest), self._question)
    for word in tokens[:NUM_ANSWERS]:
      tail.ask(word)
    tail.write(self._eos)
    body = Joined([Fixed(self._head), coded, Fixed(tail.tokens)])
    recipe = {
      "length": length,
      "slots": slots,
      "order": keys,
      "words": words[:NUM_ANSWERS],
      "counts": counts[1 : NUM_ANSWERS + 1].tolist(),
    }
    return TokenSample(body, tail.answer(body.start(2), ()), 0.0, 1.0, recipe)

  def _draw_vocabulary(
    self, rng: np.random.Generator, count: int
  ) -> tuple[list[str], Int[np.ndarray, "n w"]]:
    """Different words of the common width, most frequent first."""
    found: dict[str, np.ndarray] = {}
    while len(found) < count:
      for word in _draw_words(rng, 256):
        tokens = self._encode(" " + word)
        if len(tokens) == self._width and len(found) < count:
          found.setdefault(word, tokens)
    return list(found), np.stack(list(found.values()))


class CodedText:
  """Slots of equal width: words in a keyed order, with exact counts.

  Attributes:
    length: tokens.
  """

  def __init__(
    self,
    words: Int[np.ndarray, "n w"],
    counts: Int[np.ndarray, " n"],
    order: Permutation,
  ):
    self._words, self._order = words.astype(np.int32), order
    self._ends = np.cumsum(counts)
    self.length = int(self._ends[-1]) * words.shape[1]

  def segment(self, start: int, stop: int) -> Int[np.ndarray, " n"]:
    """Tokens `start .. stop - 1`; costs what it renders."""
    check_range(start, stop, self.length)
    width = self._words.shape[1]
    first, last = start // width, -(-stop // width)
    places = self._order(np.arange(first, last))
    rank = np.searchsorted(self._ends, places, side="right")
    tokens = self._words[rank].reshape(-1)
    return tokens[start - first * width : stop - first * width]


def word_counts(slots: int) -> Int[np.ndarray, " n"]:
  """How often each rank stands in `slots` slots, those that occur at all.

  The first entry, of the dots, takes what rounding leaves over.
  """
  ranks = np.arange(1, VOCABULARY + 1, dtype=np.float64)
  counts = (slots / ranks**2 / _ZETA_2).astype(np.int64)
  counts[0] += slots - counts.sum()
  return counts[counts > 0]


def _draw_words(rng: np.random.Generator, count: int) -> list[str]:
  shape = (count, _LETTERS)
  letters = rng.integers(ord("a"), ord("z") + 1, shape, np.uint8)
  return [row.tobytes().decode() for row in letters]
