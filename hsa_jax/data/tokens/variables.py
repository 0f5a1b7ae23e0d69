"""VT, variable tracking: chains of assignments, shuffled over the haystack.

A chain starts with a number and hands it on twice. The question names the
number, the answer all three names in the order of the chain. The form is that
of RAMba's and HiLS's third task (two chains of three, one asked). A training
row may ask for every chain, one after another, and may have shorter chains.
"""

import numpy as np

from hsa_jax.config.fields import SourceConfig
from hsa_jax.data.sample import Answer
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

_NEEDLE = ("|VAR", " =", "|")
_QUESTION = (" Find all variables that are assigned the value", ". Answer:")
_COMMA = ","
_NUM_DIGITS = 8


class VariableTask:
  """Tokenized templates of one source; meets `TokenTask`."""

  def __init__(self, source: SourceConfig, tokenizer: Tokenizer):
    """Tokenizes the templates part by part.

    Raises:
      ValueError: `num_needles` (variables) is no multiple of `chain_length`, or
        more chains are asked for (`num_questions`) than there are.
    """
    count, asked = source.num_needles, source.num_questions
    each = source.chain_length
    if not 1 <= each <= count or count % each:
      raise ValueError(
        f"num_needles = {count}: must be a multiple of chain_length = {each}"
      )
    self._chains = count // each
    if not 1 <= asked <= self._chains:
      raise ValueError(
        f"num_questions = {asked}: must be in 1..{self._chains} chains"
      )
    self._source = source
    self._encode = tokenizer.encode
    self._needle = tuple(tokenizer.encode(s) for s in _NEEDLE)
    self._question = tuple(tokenizer.encode(s) for s in _QUESTION)
    self._comma = tokenizer.encode(_COMMA)
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
    names = draw_names(rng, source.num_needles)
    numbers = self._draw_numbers(rng)
    asked = rng.permutation(self._chains)[: source.num_questions].tolist()
    where = rng.random(len(names)).tolist()
    start = int(rng.random() * len(ring))
    each = source.chain_length
    first = asked[0] * each
    if depth is not None:
      where[first] = depth
    needles, tail = self._write(names, numbers, asked)
    layout = lay_out(ring, start, needles, where, tail, length)
    recipe = {
      "haystack": str(source.haystack),
      "start": start,
      "length": length,
      "needles": [
        {"position": layout.starts[i], "name": names[i]}
        for i in in_order(where)
      ],
      "chains": [
        {"value": number, "names": names[i * each : (i + 1) * each]}
        for i, number in enumerate(numbers)
      ],
      "asked": [numbers[chain] for chain in asked],
    }
    unique = unique_fraction(ring, layout.body.filler)
    at = layout.depths[first]
    return TokenSample(layout.body, layout.answer, at, unique, recipe)

  def _draw_numbers(self, rng: np.random.Generator) -> list[str]:
    while True:
      numbers = draw_numbers(rng, self._chains, _NUM_DIGITS)
      if len(set(numbers)) == len(numbers):
        return numbers

  def _write(
    self, names: list[str], numbers: list[str], asked: list[int]
  ) -> tuple[list[np.ndarray], Tail]:
    """All assignments, and the questions with eos."""
    name_ids = [self._encode(" " + name) for name in names]
    number_ids = [self._encode(" " + number) for number in numbers]
    var, equals, end = self._needle
    each = self._source.chain_length
    needles = []
    for i, name in enumerate(name_ids):
      first = i % each == 0
      value = number_ids[i // each] if first else name_ids[i - 1]
      needles.append(np.concatenate([var, name, equals, value, end]))
    tail = Tail()
    for chain in asked:
      tail.write(self._question[0], number_ids[chain], self._question[1])
      first = chain * each
      for i in range(first, first + each):
        if i > first:
          tail.ask(self._comma)
        tail.ask(name_ids[i], needle=i, offset=len(var))
    tail.write(self._eos)
    return needles, tail

  def _worst_case(self) -> int:
    """Most tokens that assignments, questions and eos can take."""
    name = name_bound(self._encode)
    number = number_bound(self._encode, _NUM_DIGITS, before=" ")
    fixed = sum(map(len, self._needle)) + name
    each = self._source.chain_length
    later = each - 1
    chain = fixed + number + later * (fixed + name)
    question = sum(map(len, self._question)) + number
    question += each * name + later * len(self._comma)
    return self._chains * chain + self._source.num_questions * question + 1


def after_last_comma(answer: Answer, tokenizer: Tokenizer) -> Answer:
  """The part of an answer that RAMba scores: what follows the last comma.

  The comma's id is looked up: a literal id of another vocabulary would find
  another token.

  Raises:
    ValueError: the answer has no comma.
  """
  comma = tokenizer.encode(_COMMA)[-1]
  found = np.flatnonzero(answer.gold == comma)
  if not len(found):
    raise ValueError("the answer has no comma")
  rest = slice(int(found[-1]) + 1, None)
  return Answer(*(part[rest] for part in answer))
