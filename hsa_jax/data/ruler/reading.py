"""The two reading tasks: a question over documents, most of them unrelated.

Documents of the question come first, then those of its article, then others;
whole documents are taken while they fit and shuffled, and one more is cut to
fill the rest. The document that holds the answer is never the cut one; its
place is spread over the samples.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from hsa_jax.data.ruler.assets import Question, Reading
from hsa_jax.data.ruler.lexicon import Encode
from hsa_jax.data.ruler.prompt import (
  Fixed,
  Request,
  RulerPrompt,
  TooLong,
  TooShort,
)
from hsa_jax.data.ruler.templates import QA_DOCUMENT, QA_HEAD, QA_TAIL

Tokens = Int[np.ndarray, " n"]
NEW_TOKENS = 32


class _Chosen(NamedTuple):
  """Documents of a sample.

  Attributes:
    whole: those that are there in full, the question's first.
    cut: the one that fills the rest.
  """

  whole: list[int]
  cut: int


class ReadingTask:
  """Makes the samples of `qa_1` and `qa_2`; sample i asks question i."""

  def __init__(self, name: str, encode: Encode, reading: Reading):
    self.name, self._encode, self._reading = name, encode, reading
    self._tokens: dict[int, Tokens] = {}
    self._titles: dict[int, Tokens] = {}
    self._head = encode(QA_HEAD)

  def build(self, request: Request) -> RulerPrompt:
    """One sample.

    Raises:
      TooShort: the documents of the question do not fit.
      TooLong: all documents together are shorter.
    """
    number = request.sample % len(self._reading.questions)
    question = self._reading.questions[number]
    rng = request.rng(self.name)
    depth = request.depth(rng)
    tail = self._encode(QA_TAIL.format(question=question.text))
    used = NEW_TOKENS + len(self._head) + len(tail)
    chosen = self._choose(rng, question, request.length, used)
    order = _arrange(rng, question, chosen.whole, depth)
    body, starts = self._render([*order, chosen.cut])
    room = request.length - used
    parts = [self._head, body[:room], tail]
    at = {d: len(self._head) + s for d, s in starts.items()}
    return RulerPrompt(
      body=Fixed(np.concatenate(parts)),
      depth=order.index(question.first) / len(order),
      unique_fraction=1.0,
      max_new_tokens=NEW_TOKENS,
      references=question.answers,
      evidence=tuple(
        at[document] + self._offset(document, character)
        for document, character in question.evidence
      ),
      recipe={
        "task": self.name,
        "question": number,
        "documents": len(order),
        "gold": [order.index(d) for d in question.gold],
      },
    )

  def _choose(
    self, rng: np.random.Generator, question: Question, length: int, used: int
  ) -> _Chosen:
    whole: list[int] = []
    total = used
    for document in self._candidates(rng, question):
      size = len(self._title(len(whole))) + len(self._document(document))
      if total + size > length:
        missing = [d for d in question.gold if d not in whole]
        if missing:
          raise TooShort(self._least(question, used))
        return _Chosen(whole, document)
      whole.append(document)
      total += size
    what = f"the {len(self._reading.documents)} documents of {self.name}"
    raise TooLong(total, what)

  def _candidates(
    self, rng: np.random.Generator, question: Question
  ) -> Iterator[int]:
    """All documents, in the order in which they are taken."""
    yield from question.gold
    yield from (question.related[i] for i in _shuffle(rng, question.related))
    taken = {*question.gold, *question.related}
    others = rng.permutation(len(self._reading.documents)).tolist()
    yield from (d for d in others if d not in taken)

  def _least(self, question: Question, used: int) -> int:
    gold = [*question.gold]
    sizes = [len(self._document(d)) for d in gold]
    return (
      used + sum(sizes) + sum(len(self._title(i)) for i in range(len(gold)))
    )

  def _render(self, documents: list[int]) -> tuple[Tokens, dict[int, int]]:
    """Documents with their titles, and where the text of each begins."""
    parts, starts, at = [], {}, 0
    for i, document in enumerate(documents):
      title, text = self._title(i), self._document(document)
      parts += [title, text]
      starts[document] = at + len(title)
      at += len(title) + len(text)
    return np.concatenate(parts), starts

  def _document(self, number: int) -> Tokens:
    if number not in self._tokens:
      text = self._reading.documents[number]
      self._tokens[number] = self._encode(text)
    return self._tokens[number]

  def _title(self, index: int) -> Tokens:
    if index not in self._titles:
      gap = "\n\n" if index else ""
      text = gap + QA_DOCUMENT.format(number=index + 1)
      self._titles[index] = self._encode(text)
    return self._titles[index]

  def _offset(self, document: int, character: int) -> int:
    # The space before a word belongs to the word's tokens.
    text = self._reading.documents[document][:character].rstrip()
    return len(self._encode(text))


def _arrange(
  rng: np.random.Generator,
  question: Question,
  documents: list[int],
  depth: float,
) -> list[int]:
  """Documents in random order, but `question.first` at its depth."""
  others = [d for d in documents if d != question.first]
  order = [others[i] for i in _shuffle(rng, others)]
  order.insert(int(depth * len(documents)), question.first)
  return order


def _shuffle(rng: np.random.Generator, items: Iterable[int]) -> list[int]:
  return rng.permutation(len(list(items))).tolist()
