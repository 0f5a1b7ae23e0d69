"""Where the stories of evaluation samples come from: drawn, or published."""

from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

import numpy as np

from hsa_jax.data.babi.draw import draw_story
from hsa_jax.data.babi.files import find_file, read_stories
from hsa_jax.data.babi.story import Story
from hsa_jax.data.rng import EVAL, make_rng

_ATTEMPTS = 1_000  # stories drawn until one fits
_PROBES = 101  # stories that tell how long a task's stories are


class Told(NamedTuple):
  """A story up to one question; see `Question`."""

  facts: tuple[str, ...]
  question: str
  answer: str
  supports: tuple[int, ...]


Fits = Callable[[Told], bool]


class Stories(Protocol):
  """Stories that can be had by the number of a sample."""

  def tell(
    self, task: str, *, seed: int, sample: int, fits: Fits
  ) -> tuple[Told, np.random.Generator]:
    """The story of one sample, and the generator that hides its facts.

    Stories that do not fit are passed over, as in the published construction.

    Raises:
      ValueError: there is none.
    """
    ...

  def examples(self, task: str) -> Iterable[Told]:
    """Some stories of a task, always the same."""
    ...


class OwnStories:
  """Stories drawn by the rules of each task, from evaluation streams."""

  def tell(
    self, task: str, *, seed: int, sample: int, fits: Fits
  ) -> tuple[Told, np.random.Generator]:
    """A new story; samples take its first, second, ... question in turn."""
    for attempt in range(_ATTEMPTS):
      rng = make_rng(seed, f"{EVAL} babilong {task}", sample, attempt)
      told = draw_told(rng, task, sample + attempt)
      if fits(told):
        return told, rng
    raise ValueError(f"{task}: no story fits")

  def examples(self, task: str) -> Iterable[Told]:
    for number in range(_PROBES):
      rng = make_rng(0, f"{EVAL} babilong examples", number)
      yield draw_told(rng, task, number)


class FileStories:
  """Stories of the published test files, every question in file order."""

  def __init__(self, folder: str):
    self._folder = folder

  def tell(
    self, task: str, *, seed: int, sample: int, fits: Fits
  ) -> tuple[Told, np.random.Generator]:
    """The story number `sample` among those that fit."""
    rng = make_rng(seed, f"{EVAL} babilong {task}", sample)
    for told in self.examples(task):
      if fits(told):
        if sample == 0:
          return told, rng
        sample -= 1
    raise ValueError(f"{task}: {sample + 1} more stories would have to fit")

  def examples(self, task: str) -> Iterable[Told]:
    for story in read_stories(find_file(self._folder, task)):
      for number in range(len(story.questions)):
        yield up_to_question(story, number)


def draw_told(rng: np.random.Generator, task: str, number: int) -> Told:
  """A story drawn by the rules, up to its question `number`, modulo."""
  story = draw_story(rng, task)
  return up_to_question(story, number % len(story.questions))


def up_to_question(story: Story, number: int) -> Told:
  """The facts before a question, other questions left out, and it."""
  text, answer, supports, num_facts = story.questions[number]
  return Told(story.facts[:num_facts], text, answer, supports)
