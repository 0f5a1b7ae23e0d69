"""The two counting tasks: common words of a list, frequent coded words.

Lists are filled to the token: `cwe` ends with a few further words that occur
once, of which the last is cut; `fwe` takes more of the dots that its question
says to ignore.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from hsa_jax.data.ruler.assets import Words
from hsa_jax.data.ruler.lexicon import Encode, Lexicon
from hsa_jax.data.ruler.prompt import (
  Chain,
  Fixed,
  Request,
  RulerPrompt,
  TooLong,
  TooShort,
)
from hsa_jax.data.ruler.templates import (
  CWE_HEAD,
  CWE_TAIL,
  FWE_HEAD,
  FWE_TAIL,
  numbered,
)

Ids = Int[np.ndarray, " n"]

_NUM_COMMON = 10
_SPARE = 12  # words after the list, to fill the rest; more than enough
_LONG = 4096  # from this length on a list is of the large kind


class _List(NamedTuple):
  """How often words occur, and how many the solved example has.

  Attributes:
    example: different words of the example.
    example_common, example_rare: occurrences there.
    common, rare: occurrences in the list that is asked about.
  """

  example: int
  example_common: int
  example_rare: int
  common: int
  rare: int


_LARGE, _SMALL = _List(40, 10, 3, 30, 3), _List(20, 3, 1, 6, 1)


class CommonWordsTask:
  """Makes the samples of `cwe`: which ten words of a list are most common."""

  name = "cwe"
  new_tokens = 120

  def __init__(self, encode: Encode, words: Words):
    self._encode, self._words = encode, words.all
    largest = _LARGE.common * _NUM_COMMON + _LARGE.rare * len(self._words)
    numbers = ["1.", *(f" {i}." for i in range(2, largest + _SPARE + 1))]
    entries = [*(f" {word}" for word in self._words), *numbers]
    self._lexicon = Lexicon(map(encode, entries))
    sizes = self._lexicon.lengths
    self._word_sizes = sizes[: len(self._words)]
    # Tokens of the numbers of a list of n entries.
    numbers_upto = np.cumsum(sizes[len(self._words) :], dtype=np.int64)
    self._number_tokens = np.concatenate([[0], numbers_upto])

  def build(self, request: Request) -> RulerPrompt:
    """One sample.

    Raises:
      TooShort: the example and ten words do not fit.
      TooLong: there are not enough words.
    """
    kind = _LARGE if request.length >= _LONG else _SMALL
    rng = request.rng(f"{self.name}-{kind.common}")
    example = self._example(rng, kind)
    order = rng.permutation(len(self._words))
    head = self._encode(f"{example}\n{CWE_HEAD}")
    tail = self._encode(CWE_TAIL)
    room = request.length - self.new_tokens - len(head) - len(tail)
    count = self._fit(order, kind, room, request.length)
    entries = self._entries(request.filler_rng(self.name), order, count, kind)
    numbers = len(self._words) + np.arange(len(entries))
    ids = np.stack([numbers, entries], axis=1).ravel()
    body = [head, self._lexicon.render(ids)[:room], tail]
    common = [self._words[i] for i in order[:_NUM_COMMON]]
    return RulerPrompt(
      body=Fixed(np.concatenate(body)),
      depth=0.0,
      unique_fraction=1.0,
      max_new_tokens=self.new_tokens,
      references=tuple(common),
      evidence=(),
      recipe={"task": self.name, "common": common, "num_words": count},
    )

  def _example(self, rng: np.random.Generator, kind: _List) -> str:
    """A solved list with its answer."""
    chosen = rng.permutation(len(self._words))[: kind.example]
    words = [self._words[i] for i in chosen]
    common, rare = words[:_NUM_COMMON], words[_NUM_COMMON:]
    entries = common * kind.example_common + rare * kind.example_rare
    shuffled = [entries[i] for i in rng.permutation(len(entries))]
    answer = numbered(common)
    return f"{CWE_HEAD}{numbered(shuffled)}{CWE_TAIL} {answer}"

  def _fit(self, order: Ids, kind: _List, room: int, length: int) -> int:
    """Most different words whose list fits into `room` tokens."""
    counts = np.where(
      np.arange(len(order)) < _NUM_COMMON, kind.common, kind.rare
    )
    words = np.cumsum(counts * self._word_sizes[order], dtype=np.int64)
    totals = words + self._number_tokens[np.cumsum(counts)]
    count = int(np.searchsorted(totals, room, "right"))
    if count < _NUM_COMMON + 1:
      raise TooShort(length - room + int(totals[_NUM_COMMON]))
    if count + _SPARE > len(order):
      most = length - room + int(totals[len(order) - _SPARE - 1])
      raise TooLong(most, f"the word list of {len(order)} words")
    return count

  def _entries(
    self, rng: np.random.Generator, order: Ids, count: int, kind: _List
  ) -> Ids:
    """The words of the list, and the few after it that fill the rest."""
    common, rare = order[:_NUM_COMMON], order[_NUM_COMMON:count]
    entries = np.concatenate(
      [np.repeat(common, kind.common), np.repeat(rare, kind.rare)]
    )
    rest = order[count : count + _SPARE]
    return np.concatenate([rng.permutation(entries), rest])


_LETTERS = 6
_TOKENS_PER_WORD = 50  # of the vocabulary
_NUM_ASKED = 3
_DOTS = " ..."
_ZETA_2 = np.pi**2 / 6


class FrequentWordsTask:
  """Makes the samples of `fwe`: which three coded words are most frequent.

  Word k of the vocabulary occurs floor(N k^-2 / zeta(2)) times; the first is
  dots, and the next three are asked for. N is the largest for which the list
  fits and the fourth is more frequent than the fifth.
  """

  name = "fwe"
  new_tokens = 50

  def __init__(self, encode: Encode):
    self._encode = encode
    self._head, self._tail = encode(FWE_HEAD), encode(FWE_TAIL)
    self._dots = encode(_DOTS)

  def build(self, request: Request) -> RulerPrompt:
    """One sample.

    Raises:
      TooShort: three words do not come out more frequent than the others.
    """
    used = self.new_tokens + len(self._head) + len(self._tail)
    room = request.length - used
    most_words = (request.length - self.new_tokens) // _TOKENS_PER_WORD
    limit = max(min(most_words, int((max(room, 0) / _ZETA_2) ** 0.5)), 0)
    words = _draw_words(request.rng(self.name), max(limit - 1, _NUM_ASKED))
    lexicon = Lexicon([self._dots, *(self._encode(f" {w}") for w in words)])
    counts = _fit_counts(lexicon.lengths[:limit], room)
    if counts is None:
      raise TooShort(self._least(lexicon, used))
    gap = room - int(counts @ lexicon.lengths[: len(counts)])
    more, cut = divmod(gap, len(self._dots))
    counts[0] += more
    ids = request.filler_rng(self.name).permutation(
      np.repeat(np.arange(len(counts)), counts)
    )
    text = [lexicon.render(ids), self._dots[:cut]]
    parts = [self._head, np.concatenate(text), self._tail]
    asked = tuple(words[:_NUM_ASKED])
    return RulerPrompt(
      body=Chain([Fixed(part) for part in parts]),
      depth=0.0,
      unique_fraction=1.0,
      max_new_tokens=self.new_tokens,
      references=asked,
      evidence=(),
      recipe={
        "task": self.name,
        "words": list(asked),
        "counts": counts[: _NUM_ASKED + 2].tolist(),
        "vocabulary": most_words,
      },
    )

  def _least(self, lexicon: Lexicon, used: int) -> int:
    """A length at which three words are more frequent than the others."""
    ranks = _NUM_ASKED + 1
    words = int(np.ceil(_ZETA_2 * ranks**2))
    tokens = words * int(lexicon.lengths.max())
    return max(used + tokens, _TOKENS_PER_WORD * (ranks + 1) + self.new_tokens)


def _counts(words: int, ranks: int) -> Ids:
  share = np.arange(1, ranks + 1, dtype=np.float64) ** -2.0 / _ZETA_2
  return (words * share).astype(np.int64)


def _fit_counts(sizes: Ids, room: int) -> Ids | None:
  """Occurrences of each word of the largest list that fits."""
  ranks, low, high = len(sizes), 0, max(room, 0)
  if ranks <= _NUM_ASKED:
    return None
  while low < high:  # the largest N that fits
    middle = (low + high + 1) // 2
    fits = int(_counts(middle, ranks) @ sizes) <= room
    low, high = (middle, high) if fits else (low, middle - 1)
  for words in range(low, 0, -1):
    counts = _counts(words, ranks + 1)
    if counts[_NUM_ASKED] > counts[_NUM_ASKED + 1 :].max(initial=0):
      return counts[:ranks]
  return None


def _draw_words(rng: np.random.Generator, count: int) -> list[str]:
  """Different words of six small letters; the first ones at every length."""
  words: dict[str, None] = {}
  while len(words) < count:
    letters = rng.integers(ord("a"), ord("z") + 1, (64, _LETTERS), np.uint8)
    words |= dict.fromkeys(row.tobytes().decode() for row in letters)
  return list(words)[:count]
