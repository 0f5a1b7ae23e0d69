"""The same tasks with tokens of one to three characters.

With bytes every word has its own tokens; a vocabulary with merges shows whether
lengths, answers and least lengths are counted in tokens.
"""

import string

import numpy as np
import pytest

from hsa_jax.config import SourceConfig, Task
from hsa_jax.data.sample import NOWHERE, render
from hsa_jax.data.tokens.catalog import make_task
from hsa_jax.data.tokens.passkey import LandmarkPasskey
from hsa_jax.data.tokens.variables import after_last_comma

from .cases import FWE, MK_MQ, PASSKEY, SINGLE, VT, draw, name_of
from .solvers import SOLVERS, prompt_and_gold


class Merging:
  """Greedy longest match; every third pair of characters is one token."""

  spec, fingerprint = "merging", ""

  def __init__(self):
    singles = [chr(i) for i in range(128)]
    letters = string.ascii_letters + string.digits
    pairs = [a + b for a in " " + letters for b in letters][::3]
    words = [" magic", " the", " value", " VAR", "VAR", "...", ", "]
    self._texts = [*singles, *pairs, *words]
    self._ids = {text: i for i, text in enumerate(self._texts)}
    self.eos_id, self.pad_id = len(self._texts), len(self._texts) + 1
    self.vocab_size = len(self._texts) + 2

  def encode(self, text):
    ids, at = [], 0
    while at < len(text):
      size = next(n for n in (6, 4, 3, 2, 1) if text[at : at + n] in self._ids)
      ids.append(self._ids[text[at : at + size]])
      at += size
    return np.array(ids, np.int32)

  def decode(self, ids):
    return "".join(self._texts[i] for i in ids if i < len(self._texts))


TOKENIZER = Merging()
SOURCES = [
  SINGLE,
  SourceConfig(task=Task.NIAH, num_needles=4, num_questions=4),
  MK_MQ,
  VT,
  FWE,
  PASSKEY,
]
every = pytest.mark.parametrize("source", SOURCES, ids=name_of)


@every
def test_lengths_and_answers_are_counted_in_tokens(source):
  least = make_task(source, TOKENIZER).min_length
  for seed in range(20):
    for length in (least, 1_500):
      sample = draw(source, seed, length, TOKENIZER)
      tokens, answer = render(sample), sample.answer
      assert len(tokens) == length
      assert np.flatnonzero(tokens == TOKENIZER.eos_id).tolist() == [length - 1]
      np.testing.assert_array_equal(tokens[answer.positions], answer.gold)
      known = answer.sources != NOWHERE
      np.testing.assert_array_equal(
        tokens[answer.sources[known]], answer.gold[known]
      )


@pytest.mark.parametrize(("source", "solve"), SOLVERS)
def test_the_rule_gives_the_gold_answer(source, solve):
  for seed in range(10):
    sample = draw(source, seed, 1_400 + seed, TOKENIZER)
    prompt, gold = prompt_and_gold(sample, TOKENIZER)
    assert solve(prompt) == gold


def test_the_comma_is_looked_up():
  """Its id is 44 in bytes, 13 or 11 in the vocabularies of the papers."""
  sample = draw(VT, 0, 1_500, TOKENIZER)
  whole = TOKENIZER.decode(sample.answer.gold)
  last = TOKENIZER.decode(after_last_comma(sample.answer, TOKENIZER).gold)
  assert last == whole[whole.rindex(",") + 1 :]


def test_the_passkey_prompt_has_its_length():
  maker = LandmarkPasskey(TOKENIZER)
  for sample in range(10):
    prompt = maker.prompt(seed=0, sample=sample, num_samples=10, length=700)
    assert len(render(prompt)) + prompt.max_new_tokens == 700
    text = TOKENIZER.decode(render(prompt))
    assert f"The pass key is {prompt.passkey}. Remember" in text
