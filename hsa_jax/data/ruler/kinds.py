"""Keys and values of needles: words, numbers, uuids.

Each is drawn as a row of codes and written in two ways: as text, and as
strings of a `Lexicon` (for haystacks in which every line is a needle).
"""

import enum
import itertools
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Int

from hsa_jax.data.rng import make_rng
from hsa_jax.data.ruler.assets import Words
from hsa_jax.data.ruler.lexicon import Encode

Codes = Int[np.ndarray, "rows codes"]
DIGITS = 7
# How a number may be cut into strings; few parts first.
_SPLITS = (
  (3, 4),
  (4, 3),
  (3, 3, 1),
  (1, 3, 3),
  (2, 2, 3),
  (3, 2, 2),
  (2, 3, 2),
  (1,) * DIGITS,
)
_SPLIT_TRIALS = 200
_UUID_BYTES = 16
_HYPHENS = (4, 6, 8, 10)  # before these bytes
_VERSION_BYTE, _VARIANT_BYTE = 6, 8


class KindName(enum.StrEnum):
  """What a key or value is."""

  WORDS = "words"
  NUMBERS = "numbers"
  UUIDS = "uuids"


class Kind(Protocol):
  """Draws and writes one kind of key or value."""

  def draw(self, rng: np.random.Generator, rows: int) -> Codes:
    """`rows` of them, each uniform over all there are."""
    ...

  def text(self, codes: Int[np.ndarray, " codes"]) -> str:
    """One of them as it is read."""
    ...

  def tables(self) -> list[Sequence[str]]:
    """Strings of each place; together, with a space in front, they spell it."""
    ...

  def places(self, codes: Codes) -> list[Int[np.ndarray, " rows"]]:
    """Per place, which string of its table."""
    ...


class WordPairs:
  """`adjective-noun`; 6,171,620 of them with RULER's lists."""

  def __init__(self, words: Words):
    self._words = words

  def draw(self, rng: np.random.Generator, rows: int) -> Codes:
    counts = len(self._words.adjectives), len(self._words.nouns)
    # A column lies in one piece: columns are what is worked on.
    return np.stack([rng.integers(0, n, rows, np.int16) for n in counts]).T

  def text(self, codes: Int[np.ndarray, " codes"]) -> str:
    adjective, noun = codes
    return f"{self._words.adjectives[adjective]}-{self._words.nouns[noun]}"

  def tables(self) -> list[Sequence[str]]:
    adjectives = [f" {word}" for word in self._words.adjectives]
    return [adjectives, [f"-{word}" for word in self._words.nouns]]

  def places(self, codes: Codes) -> list[Int[np.ndarray, " rows"]]:
    return list(codes.T)


class Numbers:
  """Seven digits, the first not 0.

  A tokenizer may see seven digits as one string; parts of them are chosen such
  that putting them together agrees with it most often (always, for tokenizers
  that take digits one by one or by threes from the left, and for bytes).
  """

  def __init__(self, encode: Encode):
    self._split = max(_SPLITS, key=lambda split: _agreement(encode, split))

  def draw(self, rng: np.random.Generator, rows: int) -> Codes:
    low = 10 ** (DIGITS - 1)
    return rng.integers(low, 10 * low, (rows, 1), np.int32)

  def text(self, codes: Int[np.ndarray, " codes"]) -> str:
    return str(int(codes[0]))

  def tables(self) -> list[Sequence[str]]:
    first, *rest = [
      [f"{i:0{size}d}" for i in range(10**size)] for size in self._split
    ]
    return [[f" {text}" for text in first], *rest]

  def places(self, codes: Codes) -> list[Int[np.ndarray, " rows"]]:
    left, out = codes[:, 0], []
    for size in reversed(self._split):
      out.append(left % 10**size)
      left = left // 10**size
    return out[::-1]


class Uuids:
  """Version 4 uuids, written byte by byte."""

  def draw(self, rng: np.random.Generator, rows: int) -> Codes:
    drawn = rng.integers(0, 256, (rows, _UUID_BYTES), np.uint8)
    drawn[:, _VERSION_BYTE] = drawn[:, _VERSION_BYTE] & 0x0F | 0x40
    drawn[:, _VARIANT_BYTE] = drawn[:, _VARIANT_BYTE] & 0x3F | 0x80
    return drawn

  def text(self, codes: Int[np.ndarray, " codes"]) -> str:
    return "".join(
      f"{'-' if i in _HYPHENS else ''}{int(code):02x}"
      for i, code in enumerate(codes)
    )

  def tables(self) -> list[Sequence[str]]:
    plain = [f"{i:02x}" for i in range(256)]
    marks = [
      " " if i == 0 else "-" if i in _HYPHENS else ""
      for i in range(_UUID_BYTES)
    ]
    return [[mark + text for text in plain] for mark in marks]

  def places(self, codes: Codes) -> list[Int[np.ndarray, " rows"]]:
    return list(codes.T)


def make_kind(name: KindName, words: Words, encode: Encode) -> Kind:
  """The kind of that name."""
  if name is KindName.WORDS:
    return WordPairs(words)
  return Uuids() if name is KindName.UUIDS else Numbers(encode)


def draw_distinct(kind: Kind, rng: np.random.Generator, rows: int) -> Codes:
  """`rows` different ones."""
  codes = kind.draw(rng, rows)
  while len(np.unique(codes, axis=0)) < rows:
    codes = kind.draw(rng, rows)
  return codes


def _agreement(encode: Encode, split: tuple[int, ...]) -> int:
  """How many of some numbers the parts spell as the tokenizer does."""
  rng = make_rng(0, "split")
  low = 10 ** (DIGITS - 1)
  same = 0
  borders = list(itertools.accumulate(split, initial=1))
  for number in rng.integers(low, 10 * low, _SPLIT_TRIALS).tolist():
    text = f" {number}"
    cuts = [0, *borders[1:]]
    parts = [text[a:b] for a, b in itertools.pairwise(cuts)]
    spelt = np.concatenate([encode(part) for part in parts])
    same += np.array_equal(spelt, encode(text))
  return same
