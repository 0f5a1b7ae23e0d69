"""Sentences of English prose, as an untrained Punkt tokenizer finds them.

BABILong splits its books with NLTK's Punkt without a trained model, which knows
no abbreviation: "Mr." ends a sentence. What is left are these rules.

    A sentence ends at white space after `.`, `?` or `!`, which closing quotes
    and brackets may follow; but not
    - after an ellipsis,
    - after a single letter ("J. Smith") before a capital or a small letter,
    - after a number ("5. of") before a small letter.

Source: Kiss and Strunk, Computational Linguistics 32 (2006) 485-525.
"""

import re
from collections.abc import Iterator

_END = re.compile(r"[.?!][\"')\]}’”]*\s+")


def split_sentences(text: str) -> Iterator[str]:
  """The sentences of a text, in order, without the white space around them."""
  start = 0
  for match in _END.finditer(text):
    if _ends_sentence(text, match.start(), match.end()):
      yield text[start : match.end()].strip()
      start = match.end()
  if rest := text[start:].strip():
    yield rest


def _ends_sentence(text: str, stop: int, after: int) -> bool:
  """Whether the mark at `stop` ends a sentence; `after`: of the next word."""
  if text[stop] != ".":
    return True
  # A word that is longer than this is none of the exceptions.
  word = text[max(stop - 20, 0) : stop].split()[-1:] or [""]
  before, following = word[0].lstrip("\"'([{“‘"), text[after : after + 1]
  if before.endswith("."):  # of an ellipsis
    return False
  if len(before) == 1 and before.isalpha():
    return not following.isalpha()
  return not (_is_number(before) and following.islower())


def _is_number(word: str) -> bool:
  return bool(word) and word.replace(",", "").replace(".", "").isdecimal()
