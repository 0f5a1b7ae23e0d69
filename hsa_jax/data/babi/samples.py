"""BABILong samples of any length, as prompts or with their answer.

Two forms. A PROMPT is the published one: instruction, worked examples, context,
question; a model continues it. A FORCED sample is what small models are trained
on and scored with in one pass: context, question, answer, eos. Its length, and
that of a prompt with room for its answer, is exactly what was asked for.
"""

import dataclasses
import enum
import re
import statistics
from typing import Any

import numpy as np
from jaxtyping import Int

from hsa_jax.data.babi.background import Background
from hsa_jax.data.babi.prompts import make_frame
from hsa_jax.data.babi.stories import Stories, Told, draw_told
from hsa_jax.data.babi.weave import Woven, draw_plan, fact_room, weave
from hsa_jax.data.sample import Answer
from hsa_jax.data.tokenizer import Tokenizer

# The published budget, in tokens of large vocabularies. A vocabulary of bytes
# needs more for the longest answer in the form that the prompt asks for.
MAX_NEW_TOKENS = 20
_LONGEST_ANSWER = "Before the bathroom the football was in the bathroom."
_ATTEMPTS = 1_000  # stories drawn until one fits


class Form(enum.Enum):
  """How a sample asks."""

  PROMPT = "prompt"
  FORCED = "forced"


@dataclasses.dataclass(frozen=True)
class BabiSample:
  """Facts in a background, and a question about them.

  Attributes:
    task: `qa1` to `qa20`.
    told: facts, question, answer.
    woven: the tokens.
    context: index of the first token of the context, and past its last.
    first: number of the first sentence of the background.
  """

  task: str
  told: Told
  woven: Woven
  context: tuple[int, int]
  first: int

  @property
  def length(self) -> int:
    return self.woven.splice.length

  @property
  def depth(self) -> float:
    start, stop = self.context
    place = self.woven.places[key_fact(self.told)]
    return min(max(place - start, 0) / max(stop - start, 1), 1.0)

  @property
  def unique_fraction(self) -> float:
    return self.woven.unique_fraction

  def segment(self, start: int, stop: int) -> Int[np.ndarray, " n"]:
    return self.woven.splice.segment(start, stop)

  def describe(self) -> dict[str, Any]:
    told, places = self.told, self.woven.places
    return {
      "task": self.task,
      "question": told.question.strip(),
      "answer": told.answer,
      "num_facts": len(told.facts),
      "supports": [told.facts[i] for i in told.supports],
      "support_positions": [places[i] for i in told.supports],
      "first_sentence": self.first,
      "length": self.length,
    }


@dataclasses.dataclass(frozen=True)
class BabiPrompt(BabiSample):
  """A prompt in the published form.

  Attributes:
    max_new_tokens: room for the answer.
  """

  max_new_tokens: int

  @property
  def references(self) -> tuple[str, ...]:
    return (self.told.answer,)

  @property
  def evidence(self) -> tuple[int, ...]:
    """All tokens of the supporting facts."""
    places, tokens = self.woven.places, self.woven.tokens
    return tuple(
      place
      for i in sorted(self.told.supports)
      for place in range(places[i], places[i] + len(tokens[i]))
    )


@dataclasses.dataclass(frozen=True)
class BabiForced(BabiSample):
  """A context with question, answer and eos at its end."""

  answer: Answer


class Maker:
  """Makes samples of one task in one form."""

  def __init__(self, task: str, form: Form, tokenizer: Tokenizer):
    self.task, self.form = task, form
    self._tokenizer = tokenizer
    self._needs: dict[Told, int] = {}

  def need(self, told: Told) -> int:
    """Least length of a sample: all but the background, and one of that."""
    if told not in self._needs:
      head, tail = self._ends(told)
      ends = len(head) + len(tail) + self._budget()
      facts = fact_room(self._tokenizer, told.facts)
      self._needs[told] = ends + facts + 1
    return self._needs[told]

  def make(
    self,
    rng: np.random.Generator,
    told: Told,
    background: Background,
    length: int,
  ) -> BabiPrompt | BabiForced:
    """Hides the facts; what is drawn does not depend on `length`.

    Args:
      rng: draws the places; consumed.
      told: the facts and the question.
      background: sentences around them.
      length: with room for the answer; at least `need(told)`.

    Raises:
      ValueError: it is less.
    """
    if length < (need := self.need(told)):
      raise ValueError(f"length = {length}: this story needs {need} tokens")
    plan = draw_plan(rng, told.facts, background)
    head, tail = self._ends(told)
    total = length - self._budget()
    woven = weave(
      plan, background, self._tokenizer, head=head, tail=tail, length=total
    )
    context = (len(head), total - len(tail))
    common = (self.task, told, woven, context, plan.first)
    if self.form is Form.PROMPT:
      return BabiPrompt(*common, self._budget())
    gold = self._tokenizer.encode(f" {told.answer}")
    positions = np.arange(total - 1 - len(gold), total - 1)
    return BabiForced(
      *common, Answer(positions, gold, _sources(told, woven, gold))
    )

  def _ends(
    self, told: Told
  ) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " m"]]:
    """Tokens before and after the context."""
    encode = self._tokenizer.encode
    if self.form is Form.PROMPT:
      frame = make_frame(self.task, told.question)
      return encode(frame.head), encode(frame.tail)
    eos = np.array([self._tokenizer.eos_id], np.int32)
    question = encode(f" {told.question.strip()}")
    return encode(""), np.concatenate(
      [question, encode(f" {told.answer}"), eos]
    )

  def _budget(self) -> int:
    """Tokens that a model may write."""
    if self.form is Form.FORCED:
      return 0
    longest = len(self._tokenizer.encode(_LONGEST_ANSWER)) + 1  # eos
    return max(MAX_NEW_TOKENS, longest)


def evaluation_sample(
  maker: Maker,
  stories: Stories,
  background: Background,
  *,
  seed: int,
  sample: int,
  length: int,
) -> BabiPrompt | BabiForced:
  """One evaluation sample, reproducible alone.

  Samples of one number are paired over all lengths at which their story fits.
  The streams are disjoint from every training stream.

  Args:
    maker: of the task.
    stories: own or published ones.
    background: held-out sentences.
    seed: of the suite.
    sample: its number.
    length: tokens, with room for the answer.

  Raises:
    ValueError: no story fits.
  """

  def fits(told: Told) -> bool:
    return maker.need(told) <= length

  told, rng = stories.tell(maker.task, seed=seed, sample=sample, fits=fits)
  return maker.make(rng, told, background, length)


def draw_training_row(
  rng: np.random.Generator,
  length: int,
  background: Background,
  tokenizer: Tokenizer,
  task: str,
) -> BabiForced:
  """A row to train on: context, question, answer, eos.

  Args:
    rng: a training stream; consumed.
    length: tokens; see `min_length`.
    background: sentences to train on, from `store_background`.
    tokenizer: encodes facts and question.
    task: `qa1` to `qa20`.

  Raises:
    ValueError: no story fits.
  """
  maker = Maker(task, Form.FORCED, tokenizer)
  for _ in range(_ATTEMPTS):
    told = draw_told(rng, task, int(rng.integers(1 << 30)))
    if maker.need(told) <= length:
      row = maker.make(rng, told, background, length)
      assert isinstance(row, BabiForced), "the form that was asked for"
      return row
  raise ValueError(f"{task}: no story fits into {length} tokens")


def min_length(maker: Maker, stories: Stories) -> int:
  """Length into which half of a task's stories fit.

  Below it, the stories that fit are not what the task asks: they are the short
  ones. The same number for the same tokenizer.
  """
  return statistics.median_high(map(maker.need, stories.examples(maker.task)))


def key_fact(told: Told) -> int:
  """Index of the supporting fact that says the answer, else of the last one."""
  says = re.compile(rf"\b{re.escape(told.answer)}\b")
  naming = [i for i in told.supports if says.search(told.facts[i])]
  return naming[0] if naming else max(told.supports)


def _sources(
  told: Told, woven: Woven, gold: Int[np.ndarray, " n"]
) -> Int[np.ndarray, " n"]:
  """Where each answer token stands in the key fact, else the fact's end."""
  key = key_fact(told)
  fact, place = woven.tokens[key].tolist(), woven.places[key]
  answer = gold.tolist()
  for i in range(len(fact) - len(answer) + 1):
    if fact[i : i + len(answer)] == answer:
      return place + i + np.arange(len(answer))
  return np.full(len(answer), place + len(fact) - 1)
