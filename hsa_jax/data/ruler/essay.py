"""Essays as a ring of tokens with the places where sentences begin.

RULER splits essays with a trained sentence splitter (punkt). The rule here is
small and fixed instead: a sentence ends at `.`, `!` or `?`, with closing
quotes, before a space and a capital letter or digit, unless the word before is
an initial or a listed abbreviation. It is part of the protocol's version.
"""

import re
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from hsa_jax.data.ruler.lexicon import Encode

_END = re.compile(
  r"[.!?][\"')\]\u201d\u2019]* (?=[\"'(\[\u201c\u2018]?[A-Z0-9])"
)
_LAST_WORD = re.compile(r"[^\s(\[\"'\u201c\u2018]+$")
_ABBREVIATIONS = frozenset(
  "Mr. Mrs. Ms. Dr. Prof. St. Jr. Sr. vs. etc. e.g. i.e. cf. No. no. Vol. pp."
  " p. Inc. Co. Corp. Ltd. Gen. Col. Capt. Lt. Sen. Rep. Gov. Hon. Rev. U.S."
  " Jan. Feb. Mar. Apr. Jun. Jul. Aug. Sep. Sept. Oct. Nov. Dec. al."
  " Fig.".split()
)
_INITIAL = re.compile(r"[A-Z]\.")
_CONTEXT = 2  # words on each side of a join that are looked at


class Essay(NamedTuple):
  """Tokens of running text.

  Attributes:
    name: what a result line calls it.
    ring: int32, every sentence with a space in front of it.
    starts: int64, ascending from 0: tokens at which a sentence begins, and
      where cutting the text does not change the tokens on either side.
    first: int32, the first sentence without the space.
  """

  name: str
  ring: Int[np.ndarray, " n"]
  starts: Int[np.ndarray, " s"]
  first: Int[np.ndarray, " f"]

  @property
  def space(self) -> int:
    """Tokens that the space before the first sentence adds."""
    return self.size_of_first - len(self.first)

  @property
  def size_of_first(self) -> int:
    """Tokens of the first sentence in the ring."""
    return int(self.starts[1]) if len(self.starts) > 1 else len(self.ring)

  def count_starts(self, tokens: int) -> int:
    """Sentences that begin within the first `tokens`, going round."""
    rounds, rest = divmod(tokens, len(self.ring))
    inside = int(np.searchsorted(self.starts, rest, "left"))
    return rounds * len(self.starts) + inside

  def start(self, sentence: int) -> int:
    """Token at which a sentence begins, going round."""
    rounds, inside = divmod(sentence, len(self.starts))
    return rounds * len(self.ring) + int(self.starts[inside])


def make_essay(name: str, text: str, encode: Encode) -> Essay:
  """Tokenizes text sentence by sentence; all white space becomes one space."""
  sentences = split_sentences(" ".join(text.split()))
  ids = [encode(" " + s) for s in sentences]
  sizes = np.array([len(t) for t in ids], np.int64)
  begins = np.cumsum(sizes) - sizes
  kept = [0] + [
    i
    for i in range(1, len(sentences))
    if _splits_cleanly(sentences[i - 1], sentences[i], encode)
  ]
  starts = begins[kept]
  first_size = kept[1] if len(kept) > 1 else len(sentences)
  first = [encode(sentences[0]), *ids[1:first_size]]
  ring = np.concatenate(ids).astype(np.int32)
  return Essay(name, ring, starts, np.concatenate(first).astype(np.int32))


def split_sentences(text: str) -> list[str]:
  """Sentences of text without double spaces; joined by spaces they give it."""
  out, start = [], 0
  for match in _END.finditer(text):
    end = match.start() + 1
    word = _LAST_WORD.search(text, max(start, end - 24), end)
    last = word[0] if word else ""
    if last in _ABBREVIATIONS or _INITIAL.fullmatch(last):
      continue
    out.append(text[start : match.end() - 1])
    start = match.end()
  return [*out, text[start:]]


def _splits_cleanly(before: str, after: str, encode: Encode) -> bool:
  """Whether no token reaches over the border of two sentences."""
  left = " ".join(before.split(" ")[-_CONTEXT:])
  right = " " + " ".join(after.split(" ")[:_CONTEXT])
  apart = np.concatenate([encode(left), encode(right)])
  return np.array_equal(apart, encode(left + right))
