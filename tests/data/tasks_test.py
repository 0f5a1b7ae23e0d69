import json
import re

import numpy as np
import pytest

from hsa_jax.config import Haystack, Needle, SourceConfig, Task
from hsa_jax.data import tasks
from hsa_jax.data.rng import EVAL, TRAIN, make_rng
from hsa_jax.data.tasks import NiahTask
from hsa_jax.data.tokenizer import load_tokenizer

from .helpers import make_text

TOKENIZER = load_tokenizer("byte")
HAYSTACKS = tasks.make_haystacks(
  TOKENIZER.encode(make_text(5_000, 1)).astype(np.uint16), TOKENIZER
)
SINGLE = SourceConfig(task=Task.NIAH)
SOURCES = [
  SINGLE,
  SourceConfig(task=Task.NIAH, haystack=Haystack.NOISE),
  SourceConfig(task=Task.NIAH, needle=Needle.IDS),
  SourceConfig(task=Task.NIAH, num_needles=4, num_questions=2),
  SourceConfig(
    task=Task.NIAH,
    haystack=Haystack.NOISE,
    needle=Needle.IDS,
    num_needles=3,
    num_questions=3,
  ),
]


def _draw(source, seed=0, length=700, **kwargs):
  rng = make_rng(seed, "test")
  size = len(HAYSTACKS.of(source.haystack))
  task = NiahTask(source, TOKENIZER)
  return task.draw(rng, length=length, haystack_size=size, **kwargs)


def _text(recipe):
  return TOKENIZER.decode(tasks.render(recipe, HAYSTACKS))


def test_form_of_a_single_needle():
  text = _text(_draw(SINGLE, length=300))
  value = re.search(
    r" \|One of the special magic numbers for long-context is:(\d{8})\|", text
  ).group(1)
  assert text.count("|") == 2
  assert text.endswith(
    " What is the special magic number for long-context mentioned in the"
    f" provided text? Answer: {value}"
  )


def test_noise_is_the_repeated_sentences():
  recipe = _draw(SOURCES[1], length=1_000)
  text = re.sub(r" \|.*?\|", "", _text(recipe))
  text = text[: recipe.haystack_length]
  period = len(tasks.NOISE)
  assert text in tasks.NOISE * (len(text) // period + 2)


def test_several_needles_and_questions():
  for seed in range(20):
    text = _text(_draw(SOURCES[3], seed))
    needles = re.findall(
      r" \|One of the special magic numbers for (\S+) is:(\d{8})\|", text
    )
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
    assert len(asked) == 2
    assert len({key for key, _ in asked}) == 2
    assert all(dict(needles)[key] == value for key, value in asked)


@pytest.mark.parametrize("source", SOURCES)
def test_length_eos_and_places_are_exact(source):
  for seed in range(10):
    recipe = _draw(source, seed)
    tokens = tasks.render(recipe, HAYSTACKS)
    assert tokens.dtype == np.int32
    assert len(tokens) == recipe.length == 700
    assert tokens[-1] == TOKENIZER.eos_id
    assert (tokens == TOKENIZER.eos_id).sum() == 1
    end = 0
    for n in recipe.needles:
      assert n.position >= end  # they never overlap
      end = n.position + len(n.tokens)
      np.testing.assert_array_equal(tokens[n.position : end], n.tokens)
      stop = n.value_position + len(n.value)
      np.testing.assert_array_equal(tokens[n.value_position : stop], n.value)
    assert end <= 700 - len(recipe.tail)


@pytest.mark.parametrize("source", SOURCES)
def test_answers_are_the_values_asked_for(source):
  recipe = _draw(source)
  tokens = tasks.render(recipe, HAYSTACKS)
  values = [recipe.needles[q.needle].value for q in recipe.questions]
  answers = tokens[tasks.answer_positions(recipe)]
  np.testing.assert_array_equal(answers, np.concatenate(values))
  assert len(values) == source.num_questions


@pytest.mark.parametrize("source", SOURCES)
def test_any_segmentation_gives_the_same_tokens(source):
  recipe = _draw(source)
  whole = tasks.render(recipe, HAYSTACKS)
  for size in (1, 7, 64, 699, 700, 5_000):
    parts = list(tasks.segments(recipe, HAYSTACKS, size))
    np.testing.assert_array_equal(np.concatenate(parts), whole)
  assert len(tasks.segment(recipe, HAYSTACKS, 13, 13)) == 0


def test_filler_is_a_stretch_of_the_ring():
  recipe = _draw(SINGLE, length=12_000)  # more than twice the text
  tokens = tasks.render(recipe, HAYSTACKS)
  (needle,) = recipe.needles
  filler = np.concatenate(
    [
      tokens[: needle.position],
      tokens[needle.position + len(needle.tokens) : -len(recipe.tail)],
    ]
  )
  assert len(filler) == recipe.haystack_length
  index = (recipe.start + np.arange(len(filler))) % len(HAYSTACKS.text)
  np.testing.assert_array_equal(filler, HAYSTACKS.text[index])
  fraction = tasks.unique_fraction(recipe, HAYSTACKS)
  assert fraction == pytest.approx(5_000 / len(filler))
  assert tasks.unique_fraction(_draw(SINGLE), HAYSTACKS) == 1.0


def test_random_ids_avoid_special_tokens():
  values = [_draw(SOURCES[2], s).needles[0].value for s in range(300)]
  ids = np.concatenate(values)
  assert ids.min() == 100
  assert ids.max() == 255
  assert len(values[0]) == 7


def test_random_ids_need_a_vocabulary():
  small = load_tokenizer("byte")
  small.vocab_size = 101
  with pytest.raises(ValueError, match="needs ids above 100"):
    NiahTask(SOURCES[2], small)


@pytest.mark.parametrize("source", SOURCES)
def test_min_length_is_enough_and_one_less_is_not(source):
  # Byte tokens: the worst case has all the long keys, so ask for all needles.
  least = tasks.min_length(source, TOKENIZER)
  for seed in range(20):
    assert _draw(source, seed, least).haystack_length >= 1
  if source.num_questions == source.num_needles:
    assert _draw(source, 0, least).haystack_length == 1
    with pytest.raises(ValueError, match=f"length = {least - 1}: .*take"):
      _draw(source, 0, least - 1)


def test_training_depths_are_uniform():
  depths, ends = [], 0
  for seed in range(400):
    recipe = _draw(SINGLE, seed)
    depths.append(recipe.needles[0].position / recipe.haystack_length)
    ends += recipe.needles[0].position in (0, recipe.haystack_length)
  counts, _ = np.histogram(depths, bins=4, range=(0, 1))
  assert counts.min() > 70
  assert ends < 10


def _evaluate(sample, length, num_samples=10, seed=3):
  return tasks.evaluation_recipe(
    NiahTask(SINGLE, TOKENIZER),
    HAYSTACKS,
    SINGLE,
    seed=seed,
    sample=sample,
    num_samples=num_samples,
    length=length,
  )


def test_evaluation_depths_are_stratified():
  for sample in range(10):
    recipe = _evaluate(sample, 100_000)
    depth = recipe.needles[0].position / recipe.haystack_length
    assert sample / 10 - 1e-3 <= depth <= (sample + 1) / 10 + 1e-3


def test_evaluation_is_paired_over_lengths():
  for sample in range(10):
    short, long = _evaluate(sample, 10_000), _evaluate(sample, 1 << 20)
    np.testing.assert_array_equal(short.needles[0].value, long.needles[0].value)
    depths = [r.needles[0].position / r.haystack_length for r in (short, long)]
    assert depths[0] == pytest.approx(depths[1], abs=2e-4)
    assert short.start == long.start


def test_evaluation_samples_and_seeds_differ():
  values = {
    tuple(_evaluate(i, 1_000, seed=s).needles[0].value)
    for i in range(10)
    for s in range(3)
  }
  assert len(values) == 30


def test_asked_depth_holds_with_distractors():
  for seed in range(10):
    recipe = _draw(SOURCES[3], seed, length=50_000, depth=0.5)
    asked = recipe.needles[recipe.questions[0].needle]
    assert asked.position / recipe.haystack_length == pytest.approx(
      0.5, abs=0.01
    )


def test_a_segment_of_a_huge_sample_is_made_alone():
  recipe = _evaluate(5, 1 << 40)
  (needle,) = recipe.needles
  stop = needle.position + len(needle.tokens)
  got = tasks.segment(recipe, HAYSTACKS, needle.position, stop)
  np.testing.assert_array_equal(got, needle.tokens)


def test_segment_outside_the_sample():
  with pytest.raises(ValueError, match=r"600\.\.701 is not inside 0\.\.700"):
    tasks.segment(_draw(SINGLE), HAYSTACKS, 600, 701)


def test_recipe_fits_a_line_of_json():
  recipe = _draw(SOURCES[3])
  again = json.loads(json.dumps(tasks.describe(recipe)))
  assert again["length"] == 700
  assert [n["key"] for n in again["needles"]] == [n.key for n in recipe.needles]
  assert again["needles"][0]["value"] == recipe.needles[0].value.tolist()


def test_streams_differ_in_every_word():
  streams = [
    make_rng(*args).integers(0, 1 << 62, 4).tolist()
    for args in [
      (0, TRAIN, 0),
      (1, TRAIN, 0),
      (0, EVAL, 0),
      (0, TRAIN, 1),
      (0, TRAIN, 0, 1),
      (0, TRAIN, 1, 1),
      (0, TRAIN, 0, 0, 1),
    ]
  ]
  numbers = [n for stream in streams for n in stream]
  assert len(set(numbers)) == len(numbers)


def test_streams_are_the_same_everywhere():
  drawn = make_rng(7, TRAIN, 11, 5).integers(0, 1 << 32, 3).tolist()
  assert drawn == [723807684, 1123155678, 705569275]
