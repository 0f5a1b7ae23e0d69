"""The passkey in prose against a slow twin of the published prompt."""

import json

import pytest

from hsa_jax.data.sample import render
from hsa_jax.data.tokens.passkey import (
  LandmarkPasskey,
  first_integer,
  is_right,
)

from .cases import TOKENIZER

MAKER = LandmarkPasskey(TOKENIZER)
GARBAGE = (
  "The grass is green. The sky is blue. The sun is yellow. Here we go. There"
  " and back again."
)


def make(sample=0, length=1_000, num_samples=10, seed=0):
  return MAKER.prompt(
    seed=seed, sample=sample, num_samples=num_samples, length=length
  )


def slow_prompt(passkey, before, after):
  """Line by line, as the protocol says."""
  endless = " ".join([GARBAGE] * 1_000)
  return "\n".join(
    [
      "There is an important info hidden inside a lot of irrelevant text. Find"
      " it and memorize them. I will quiz you about the important information"
      " there.",
      endless[:before],
      f"The pass key is {passkey}. Remember it. {passkey} is the pass key.",
      endless[:after],
      "What is the pass key? The pass key is",
    ]
  )


@pytest.mark.parametrize("length", [400, 1_000, 20_000])
def test_prompt_is_the_published_one(length):
  for sample in range(10):
    prompt = make(sample, length)
    text = TOKENIZER.decode(render(prompt))
    (key,) = prompt.references
    head = len(slow_prompt(key, 0, 0).split("\n")[0]) + 1
    before = prompt.evidence[0] - head
    after = len(text) - len(slow_prompt(key, 0, 0)) - before
    assert text == slow_prompt(key, before, after)
    assert len(text) + prompt.max_new_tokens == length
    assert (
      sample / 10 - 5e-3 <= before / (before + after) <= sample / 10 + 0.105
    )


def test_evidence_is_the_line_that_states_the_passkey():
  prompt = make(4)
  tokens = render(prompt)[list(prompt.evidence)]
  (key,) = prompt.references
  line = f"\nThe pass key is {key}. Remember it. {key} is the pass key.\n"
  assert TOKENIZER.decode(tokens) == line


def test_prompts_are_paired_over_lengths_and_differ_between_samples():
  keys = []
  for sample in range(10):
    short, long = make(sample, 2_000), make(sample, 1 << 25)
    assert short.references == long.references
    assert short.depth == pytest.approx(long.depth, abs=2e-3)
    keys += short.references
  assert len(set(keys)) == 10
  assert all(1 <= int(key) <= 50_000 for key in keys)


def test_repeated_sentences_are_not_unique():
  prompt = make(length=1 << 25)
  assert prompt.unique_fraction == pytest.approx(
    (len(GARBAGE) + 1) / 2**25, 1e-3
  )
  assert prompt.depth < 0.1


def test_least_length():
  assert make(length=MAKER.min_length).length == MAKER.min_length - 10
  with pytest.raises(ValueError, match="length = 200: the prompt"):
    make(length=200)


def test_a_prompt_fits_a_line_of_json():
  assert json.loads(json.dumps(make().describe()))["length"] == 990


@pytest.mark.parametrize(
  ("answer", "number"),
  [
    (" 123. Remember", 123),
    ("123456", 123456),
    (" the key is 7 or 8", 7),
    (" 00123", 123),
    ("none", None),
    ("", None),
  ],
)
def test_first_integer(answer, number):
  assert first_integer(answer) == number


def test_only_the_whole_number_is_right():
  assert is_right(" 123.", ("123",))
  assert not is_right(" 1234", ("123",))
  assert not is_right(" 12", ("123",))
  assert not is_right("none", ("123",))
