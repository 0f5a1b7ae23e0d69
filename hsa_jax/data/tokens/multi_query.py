"""MK/MQ: many keyed needles, two of them asked for in one question.

The form of RAMba's and HiLS's second task (six needles, two asked). A training
row may ask several such questions, one after another, about different needles.
"""

import numpy as np

from hsa_jax.config.fields import SourceConfig
from hsa_jax.data.tokenizer import Tokenizer
from hsa_jax.data.tokens.layout import (
  Tail,
  TokenSample,
  in_order,
  lay_out,
  unique_fraction,
)
from hsa_jax.data.tokens.rings import Haystacks
from hsa_jax.data.tokens.words import (
  draw_names,
  draw_numbers,
  name_bound,
  number_bound,
)

KEYS_PER_QUESTION = 2
_NEEDLE = ("| One of the special magic numbers for", " is", ".|")
_QUESTION = (
  " What are all the special magic numbers for",
  " and",
  " mentioned in the provided text?. Answer:",
)
_NUM_DIGITS = 6


class MultiQueryTask:
  """Tokenized templates of one source; meets `TokenTask`."""

  def __init__(self, source: SourceConfig, tokenizer: Tokenizer):
    """Tokenizes the templates part by part.

    Raises:
      ValueError: `num_questions` (needles asked for, two per question) is odd
        or above `num_needles`.
    """
    asked, count = source.num_questions, source.num_needles
    if not 2 <= asked <= count or asked % KEYS_PER_QUESTION:
      raise ValueError(
        f"num_questions = {asked}: must be even and in 2..num_needles = {count}"
      )
    self._source = source
    self._encode = tokenizer.encode
    self._needle = tuple(tokenizer.encode(s) for s in _NEEDLE)
    self._question = tuple(tokenizer.encode(s) for s in _QUESTION)
    self._eos = np.array([tokenizer.eos_id], np.int32)
    self.min_length = self._worst_case() + 1

  def draw(
    self,
    rng: np.random.Generator,
    haystacks: Haystacks,
    *,
    length: int,
    depth: float | None = None,
  ) -> TokenSample:
    """Draws a sample; see `TokenTask.draw`."""
    source, ring = self._source, haystacks.of(self._source.haystack)
    keys = draw_names(rng, source.num_needles)
    values = draw_numbers(rng, len(keys), _NUM_DIGITS)
    asked = rng.permutation(len(keys))[: source.num_questions].tolist()
    where = rng.random(len(keys)).tolist()
    start = int(rng.random() * len(ring))
    if depth is not None:
      where[asked[0]] = depth
    needles, tail = self._write(keys, values, asked)
    layout = lay_out(ring, start, needles, where, tail, length)
    recipe = {
      "haystack": str(source.haystack),
      "start": start,
      "length": length,
      "needles": [
        {"position": layout.starts[i], "key": keys[i], "value": values[i]}
        for i in in_order(where)
      ],
      "asked": [keys[i] for i in asked],
    }
    unique = unique_fraction(ring, layout.body.filler)
    at = layout.depths[asked[0]]
    return TokenSample(layout.body, layout.answer, at, unique, recipe)

  def _write(
    self, keys: list[str], values: list[str], asked: list[int]
  ) -> tuple[list[np.ndarray], Tail]:
    """All needles, and the questions with eos."""
    key_ids = [self._encode(" " + k) for k in keys]
    value_ids = [self._encode(" " + v) for v in values]
    head, middle, end = self._needle
    pairs = zip(key_ids, value_ids, strict=True)
    needles = [np.concatenate([head, k, middle, v, end]) for k, v in pairs]
    first, joint, last = self._question
    tail = Tail()
    for one, two in zip(asked[::2], asked[1::2], strict=True):
      tail.write(first, key_ids[one], joint, key_ids[two], last)
      for i in (one, two):
        offset = len(needles[i]) - len(end) - len(value_ids[i])
        tail.ask(value_ids[i], needle=i, offset=offset)
    tail.write(self._eos)
    return needles, tail

  def _worst_case(self) -> int:
    """Most tokens that needles, questions and eos can take."""
    source, key = self._source, name_bound(self._encode)
    value = number_bound(self._encode, _NUM_DIGITS, before=" ")
    needle = sum(map(len, self._needle)) + key + value
    question = sum(map(len, self._question)) + 2 * (key + value)
    asked = source.num_questions // KEYS_PER_QUESTION
    return source.num_needles * needle + asked * question + 1
