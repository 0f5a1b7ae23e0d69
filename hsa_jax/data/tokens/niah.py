"""S-NIAH and its training variants: needles, and a question for each one asked.

The form is the one of RAMba and HiLS (arXiv 2504.16795 and their public code):
a stretch of tokens, needles inserted at any token, the questions with their
answers at the very end, then eos.
"""

import numpy as np
from jaxtyping import Int

from hsa_jax.config.fields import Needle, SourceConfig
from hsa_jax.data.tokenizer import Tokenizer
from hsa_jax.data.tokens.layout import (
  Layout,
  Tail,
  TokenSample,
  in_order,
  lay_out,
  unique_fraction,
)
from hsa_jax.data.tokens.rings import Haystacks, ordinary_ids
from hsa_jax.data.tokens.words import (
  draw_names,
  draw_numbers,
  name_bound,
  number_bound,
)

KEY = "long-context"  # of the first needle
_NEEDLE = (" |One of the special magic numbers for", " is:", "|")
_QUESTION = (
  " What is the special magic number for",
  " mentioned in the provided text? Answer: ",
)
_NUM_DIGITS = 8
_NUM_IDS, _FIRST_ID = 7, 100


class NiahTask:
  """Tokenized templates of one source; meets `TokenTask`."""

  def __init__(self, source: SourceConfig, tokenizer: Tokenizer):
    """Tokenizes the templates part by part.

    Raises:
      ValueError: more questions than needles, or a vocabulary too small for
        random-id needles.
    """
    if not 1 <= source.num_questions <= source.num_needles:
      raise ValueError(
        f"num_questions = {source.num_questions}: must be in"
        f" 1..num_needles = {source.num_needles}"
      )
    self._source = source
    self._encode = tokenizer.encode
    self._needle = tuple(tokenizer.encode(s) for s in _NEEDLE)
    self._question = tuple(tokenizer.encode(s) for s in _QUESTION)
    self._eos = np.array([tokenizer.eos_id], np.int32)
    self._first_key = tokenizer.encode(" " + KEY)
    self._ids = _value_ids(source.needle, tokenizer)
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
    keys = [KEY, *draw_names(rng, source.num_needles - 1)]
    values = self._draw_values(rng, len(keys))
    asked = rng.permutation(len(keys))[: source.num_questions].tolist()
    where = rng.random(len(keys)).tolist()
    start = int(rng.random() * len(ring))
    if depth is not None:
      where[asked[0]] = depth
    needles, tail = self._write(keys, values, asked)
    layout = lay_out(ring, start, needles, where, tail, length)
    order = in_order(where)
    recipe = {
      "haystack": str(source.haystack),
      "start": start,
      "length": length,
      "needles": [_described(i, layout, keys, values) for i in order],
      "questions": [order.index(i) for i in asked],
    }
    unique = unique_fraction(ring, layout.body.filler)
    at = layout.depths[asked[0]]
    return TokenSample(layout.body, layout.answer, at, unique, recipe)

  def _write(
    self, keys: list[str], values: list[np.ndarray], asked: list[int]
  ) -> tuple[list[np.ndarray], Tail]:
    """All needles, and the questions with eos."""
    head, middle, end = self._needle
    key_ids = [self._key_ids(k) for k in keys]
    pairs = zip(key_ids, values, strict=True)
    needles = [np.concatenate([head, k, middle, v, end]) for k, v in pairs]
    tail = Tail()
    for i in asked:
      tail.write(self._question[0], key_ids[i], self._question[1])
      offset = len(needles[i]) - len(end) - len(values[i])
      tail.ask(values[i], needle=i, offset=offset)
    tail.write(self._eos)
    return needles, tail

  def _draw_values(
    self, rng: np.random.Generator, count: int
  ) -> list[np.ndarray]:
    if self._source.needle is Needle.IDS:
      chosen = rng.integers(0, len(self._ids), (count, _NUM_IDS))
      return list(self._ids[chosen])
    return [self._encode(n) for n in draw_numbers(rng, count, _NUM_DIGITS)]

  def _key_ids(self, key: str) -> Int[np.ndarray, " n"]:
    return self._first_key if key == KEY else self._encode(" " + key)

  def _worst_case(self) -> int:
    """Most tokens that needles, questions and eos can take."""
    source = self._source
    others = [name_bound(self._encode)] * (source.num_needles - 1)
    keys = [len(self._first_key), *others]
    ids = source.needle is Needle.IDS
    value = _NUM_IDS if ids else number_bound(self._encode, _NUM_DIGITS)
    needle = sum(map(len, self._needle)) + value
    question = sum(map(len, self._question)) + value
    asked = sorted(keys, reverse=True)[: source.num_questions]
    needles = sum(keys) + len(keys) * needle
    return needles + sum(asked) + len(asked) * question + 1


def _described(
  i: int, layout: Layout, keys: list[str], values: list[np.ndarray]
) -> dict:
  return {
    "position": layout.starts[i],
    "key": keys[i],
    "value": values[i].tolist(),
  }


def _value_ids(needle: Needle, tokenizer: Tokenizer) -> Int[np.ndarray, " n"]:
  if needle is not Needle.IDS:
    return np.empty(0, np.int32)
  ids = ordinary_ids(tokenizer)
  ids = ids[ids >= _FIRST_ID]
  if len(ids) < 2:
    raise ValueError(
      f"needle = 'ids': needs ids above {_FIRST_ID}, the tokenizer has"
      f" {tokenizer.vocab_size}"
    )
  return ids
