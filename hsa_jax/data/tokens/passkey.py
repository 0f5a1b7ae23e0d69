"""Passkey: ten random ids in a haystack (RAMba), or a number in prose.

The second form is that of Landmark Attention (arXiv 2305.16300): repeated
sentences, a number from 1 to 50,000 stated twice, and a prompt that the model
continues. Its filler begins anew after the passkey, as in the original.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from hsa_jax.config.fields import SourceConfig
from hsa_jax.data.rng import make_rng
from hsa_jax.data.sample import Splice
from hsa_jax.data.tokenizer import Tokenizer
from hsa_jax.data.tokens.layout import (
  Body,
  Tail,
  TokenSample,
  evaluation_purpose,
  lay_out,
  unique_fraction,
)
from hsa_jax.data.tokens.parts import Fixed, Joined
from hsa_jax.data.tokens.rings import Haystacks, ordinary_ids

NUM_IDS = 10
MAX_KEY = 50_000
MAX_NEW_TOKENS = 10
_NEEDLE = ("|The passkey is:", "|")
_QUESTION = "|What is the passkey? The passkey is"
_TASK = (
  "There is an important info hidden inside a lot of irrelevant text. Find it"
  " and memorize them. I will quiz you about the important information there."
)
_SENTENCES = (
  "The grass is green. The sky is blue. The sun is yellow. Here we go. There"
  " and back again. "
)
_PERIODS = 1_000  # of the filler in one ring: long stretches are cut, not built
_PROMPT_END = "\nWhat is the pass key? The pass key is"


class PasskeyTask:
  """The form of random ids; meets `TokenTask`.

  All ten ids are in the answer, the last alone is scored: by then nine of them
  have been given, and the model must still find the tenth.
  """

  def __init__(self, source: SourceConfig, tokenizer: Tokenizer):
    """Tokenizes the templates part by part."""
    self._source = source
    self._needle = tuple(tokenizer.encode(s) for s in _NEEDLE)
    self._question = tokenizer.encode(_QUESTION)
    self._ids = ordinary_ids(tokenizer)
    self._eos = np.array([tokenizer.eos_id], np.int32)
    needle = sum(map(len, self._needle)) + NUM_IDS
    self.min_length = needle + len(self._question) + NUM_IDS + 2

  def draw(
    self,
    rng: np.random.Generator,
    haystacks: Haystacks,
    *,
    length: int,
    depth: float | None = None,
  ) -> TokenSample:
    """Draws a sample; see `TokenTask.draw`."""
    ring = haystacks.of(self._source.haystack)
    value = self._ids[rng.integers(0, len(self._ids), NUM_IDS)]
    where = float(rng.random()) if depth is None else depth
    start = int(rng.random() * len(ring))
    head, end = self._needle
    tail = Tail()
    tail.write(self._question, value[:-1])
    tail.ask(value[-1:], needle=0, offset=len(head) + NUM_IDS - 1)
    tail.write(self._eos)
    needle = np.concatenate([head, value, end])
    layout = lay_out(ring, start, [needle], [where], tail, length)
    recipe = {
      "haystack": str(self._source.haystack),
      "start": start,
      "length": length,
      "position": layout.starts[0],
      "value": value.tolist(),
    }
    unique = unique_fraction(ring, layout.body.filler)
    at = layout.depths[0]
    return TokenSample(layout.body, layout.answer, at, unique, recipe)


class PasskeyPrompt(NamedTuple):
  """A sample of the prose form; meets `data.sample.Prompt`.

  Attributes:
    body: its tokens.
    depth: relative depth of the line that states the passkey.
    unique_fraction: share of the filler that does not repeat.
    evidence: indices of the tokens of that line.
    passkey: what the answer should begin with.
  """

  body: Body
  depth: float
  unique_fraction: float
  evidence: tuple[int, ...]
  passkey: int

  @property
  def length(self) -> int:
    """Tokens of the prompt."""
    return self.body.length

  @property
  def max_new_tokens(self) -> int:
    """Room for the answer."""
    return MAX_NEW_TOKENS

  @property
  def references(self) -> tuple[str, ...]:
    """The passkey in digits."""
    return (str(self.passkey),)

  def segment(self, start: int, stop: int) -> Int[np.ndarray, " n"]:
    """Tokens `start .. stop - 1`, int32."""
    return self.body.segment(start, stop)

  def describe(self) -> dict[str, Any]:
    """The recipe, for a line of JSON."""
    position = self.evidence[0]
    return {
      "length": self.length,
      "position": position,
      "passkey": self.passkey,
    }


class LandmarkPasskey:
  """Makes prompts of the prose form."""

  def __init__(self, tokenizer: Tokenizer):
    self._encode = tokenizer.encode
    self._head = tokenizer.encode(_TASK + "\n")
    period = tokenizer.encode(_SENTENCES)
    self._period = len(period)
    self._ring = np.tile(period, _PERIODS)
    self._end = tokenizer.encode(_PROMPT_END)
    line = max(len(self._line(key)) for key in (MAX_KEY, 11_111, 44_444))
    fixed = len(self._head) + line + len(self._end)
    self.min_length = fixed + MAX_NEW_TOKENS + 1

  def prompt(
    self, *, seed: int, sample: int, num_samples: int, length: int
  ) -> PasskeyPrompt:
    """One evaluation sample, reproducible alone and paired over lengths.

    Args:
      seed: of the suite.
      sample: index, 0 <= sample < num_samples; its depth is stratified.
      num_samples: samples at this length.
      length: tokens of the prompt and of the room for the answer.

    Raises:
      ValueError: `length` leaves no room for filler.
    """
    rng = make_rng(seed, evaluation_purpose("passkey_text"), sample)
    depth = (sample + rng.random()) / num_samples
    key = 1 + int(rng.random() * MAX_KEY)
    line = self._line(key)
    fixed = len(self._head) + len(line) + len(self._end) + MAX_NEW_TOKENS
    filler = length - fixed
    if filler < 1:
      raise ValueError(
        f"length = {length}: the prompt and its answer take {fixed} tokens, and"
        " the haystack needs one more"
      )
    before = min(int(depth * (filler + 1)), filler)
    body = Joined(
      [
        Fixed(self._head),
        Splice(self._ring, 0, (), before),
        Fixed(line),
        Splice(self._ring, 0, (), filler - before),
        Fixed(self._end),
      ]
    )
    evidence = range(body.start(2), body.start(3))
    unique = min(1.0, self._period / filler)
    return PasskeyPrompt(body, before / filler, unique, tuple(evidence), key)

  def _line(self, key: int) -> Int[np.ndarray, " n"]:
    return self._encode(
      f"\nThe pass key is {key}. Remember it. {key} is the pass key.\n"
    )


def first_integer(text: str) -> int | None:
  """The first whole number of an answer, which is what is scored."""
  found = re.search(r"\d+", text)
  return int(found.group()) if found else None


def is_right(prediction: str, references: Sequence[str]) -> bool:
  """Whether the first whole number of an answer is the passkey."""
  number = first_integer(prediction)
  return number is not None and str(number) in references
