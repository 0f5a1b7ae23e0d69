"""What a bAbI story is, and how its words are drawn."""

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np

T = TypeVar("T")


class Question(NamedTuple):
  """A question and the facts it may use.

  Attributes:
    text: as published; a space follows the question mark in some tasks.
    answer: one of the task's labels, or several with commas (qa8).
    supports: indices of the facts that the answer follows from; the answer is
      said by the first of them that names it.
    num_facts: facts told before it.
  """

  text: str
  answer: str
  supports: tuple[int, ...]
  num_facts: int


class Story(NamedTuple):
  """Facts in the order they are told, and the questions between them."""

  facts: tuple[str, ...]
  questions: tuple[Question, ...]


def pick(rng: np.random.Generator, items: Sequence[T]) -> T:
  """One item, uniformly."""
  return items[int(rng.random() * len(items))]


def happens(rng: np.random.Generator, probability: float) -> bool:
  """True with this probability."""
  return bool(rng.random() < probability)


def shuffled(rng: np.random.Generator, items: Sequence[T]) -> list[T]:
  """The items in random order."""
  return [items[i] for i in rng.permutation(len(items)).tolist()]
