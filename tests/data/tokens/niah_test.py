"""S-NIAH: its form, and that it is still the one of stored results."""

import hashlib
import json
import re

import numpy as np
import pytest

from hsa_jax.data.rng import make_rng
from hsa_jax.data.sample import render
from hsa_jax.data.tokens.layout import evaluation_sample
from hsa_jax.data.tokens.niah import NiahTask
from hsa_jax.data.tokens.rings import NOISE

from .cases import HAYSTACKS, NIAH_SOURCES, SINGLE, TOKENIZER, draw, evaluate

NOISY, IDS, MANY = NIAH_SOURCES[1:4]
NEEDLE = r" \|One of the special magic numbers for (\S+) is:(\d{8})\|"


def text_of(sample):
  return TOKENIZER.decode(render(sample))


@pytest.mark.parametrize(
  ("source", "digest"),
  [
    (
      SINGLE,
      "cbba38db5102c82f9389ad2309609e2db2a790439b2751fe0ecfaaebf4f15aaa",
    ),
    (
      NIAH_SOURCES[4],
      "9b7d5a4a8d6e12b98ddd4a119bd1a2db992e66be4ba431c2df8777c29d45cfdc",
    ),
    (
      MANY,
      "28e50abeee36722a4c730da5df0e8d351413a1d65689fbd4566c9ec02c0e86f5",
    ),
  ],
)
def test_samples_are_those_of_version_1(source, digest):
  """Tokens and recipes, hashed before the tasks had a common form."""
  found, task = hashlib.sha256(), NiahTask(source, TOKENIZER)
  for number in range(20):
    for length in (700, 9_000):
      sample = evaluation_sample(
        task,
        HAYSTACKS,
        stream="",
        seed=3,
        sample=number,
        num_samples=20,
        length=length,
      )
      found.update(render(sample).astype("<i4").tobytes())
      found.update(json.dumps(sample.describe()).encode())
  assert found.hexdigest() == digest


def test_form_of_a_single_needle():
  text = text_of(draw(SINGLE, length=300))
  ((key, value),) = re.findall(NEEDLE, text)
  assert key == "long-context"
  assert text.count("|") == 2
  assert text.endswith(
    " What is the special magic number for long-context mentioned in the"
    f" provided text? Answer: {value}"
  )


def test_noise_is_the_repeated_sentences():
  text = re.sub(r" \|.*?\|", "", text_of(draw(NOISY)))
  text = text[: text.index(" What is the special")]
  assert text in NOISE * (len(text) // len(NOISE) + 2)


def test_several_needles_and_questions():
  for seed in range(20):
    text = text_of(draw(MANY, seed))
    needles = re.findall(NEEDLE, text)
    keys = [key for key, _ in needles]
    assert len(set(keys)) == 4
    assert "long-context" in keys
    others = [k for k in keys if k != "long-context"]
    assert all(re.fullmatch("[A-Z]{5}", k) for k in others)
    asked = re.findall(
      r" What is the special magic number for (\S+) mentioned in the provided"
      r" text\? Answer: (\d{8})",
      text,
    )
    assert len({key for key, _ in asked}) == 2
    assert all(dict(needles)[key] == value for key, value in asked)


def test_filler_is_a_stretch_of_the_ring():
  sample = draw(SINGLE, length=12_000)  # more than twice the text
  recipe = sample.describe()
  text = text_of(sample)
  (needle,) = re.finditer(NEEDLE, text)
  assert needle.start() == recipe["needles"][0]["position"]
  filler = text[: needle.start()] + text[needle.end() :]
  filler = filler[: filler.index(" What is the special")]
  index = recipe["start"] + np.arange(len(filler))
  ring = HAYSTACKS.text[index % len(HAYSTACKS.text)]
  assert filler == TOKENIZER.decode(ring)


def test_random_ids_avoid_special_tokens():
  values = [draw(IDS, seed).answer.gold for seed in range(300)]
  assert np.min(values) == 100 and np.max(values) == 255
  assert len(values[0]) == 7


def test_random_ids_need_a_vocabulary():
  small = type(TOKENIZER)()
  small.vocab_size = 101
  with pytest.raises(ValueError, match="needs ids above 100"):
    NiahTask(IDS, small)


def test_training_depths_are_uniform():
  task = NiahTask(SINGLE, TOKENIZER)
  depths = [
    task.draw(make_rng(seed, "test"), HAYSTACKS, length=700).depth
    for seed in range(400)
  ]
  counts, _ = np.histogram(depths, bins=4, range=(0, 1))
  assert counts.min() > 70
  assert sum(depth in (0, 1) for depth in depths) < 10


def test_asked_depth_holds_with_distractors():
  for seed in range(10):
    sample = draw(MANY, seed, length=50_000, depth=0.5)
    assert sample.depth == pytest.approx(0.5, abs=0.01)
    first = sample.describe()["questions"][0]
    asked = sample.describe()["needles"][first]["position"]
    assert asked == pytest.approx(25_000, rel=0.02)
    assert abs(int(sample.answer.sources[0]) - asked) < 70


def test_a_needle_of_a_huge_sample_is_where_the_recipe_says():
  sample = evaluate(SINGLE, 5, 1 << 40)
  at = sample.describe()["needles"][0]["position"]
  assert TOKENIZER.decode(sample.segment(at, at + 8)) == " |One of"
