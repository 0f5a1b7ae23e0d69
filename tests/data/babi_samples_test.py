"""Samples of any length against the whole, put together slowly."""

import itertools
import time
import tracemalloc
import zlib

import numpy as np
import pytest

from hsa_jax.data.babi.background import make_background
from hsa_jax.data.babi.prompts import make_frame
from hsa_jax.data.babi.samples import (
  Form,
  Maker,
  draw_training_row,
  evaluation_sample,
  key_fact,
  min_length,
)
from hsa_jax.data.babi.stories import OwnStories, Told
from hsa_jax.data.babi.weave import Plan, draw_plan, weave
from hsa_jax.data.babi.words import LABELS, TASKS
from hsa_jax.data.rng import EVAL, TRAIN, make_rng
from hsa_jax.data.sample import render
from hsa_jax.data.tokenizer import load_tokenizer

from .babi_solver import solve

TOKENIZER = load_tokenizer("byte")
BOOK = " ".join(
  f"Sentence number {i} of the book{' and more' * (i % 5)}." for i in range(42)
)
BACKGROUND = make_background([BOOK], TOKENIZER, where="test")
SENTENCES = [TOKENIZER.decode(BACKGROUND.sentence(k)) for k in range(40)]


def sample_of(task, form=Form.FORCED, *, number=3, length=4_000, seed=0):
  maker = Maker(task, form, TOKENIZER)
  return evaluation_sample(
    maker, OwnStories(), BACKGROUND, seed=seed, sample=number, length=length
  )


def slow(plan, head, tail, length):
  """Sentence by sentence, as text; one byte is one token."""
  facts = [f" {fact}" for fact in plan.facts]
  room = length - len(head + tail + "".join(facts))
  ring = itertools.cycle(SENTENCES)
  sentences = list(itertools.islice(ring, plan.first, plan.first + 500))
  ends = [0, *itertools.accumulate(map(len, sentences))]
  count = next(k for k, end in enumerate(ends) if end >= room)
  # The context begins without its space, which leaves room for one more byte.
  room += 1
  text, done = "", 0
  for fact, w in zip(facts, plan.where, strict=True):
    at = min(ends[int(w * (count + 1))], room)
    text += "".join(sentences)[done:at] + fact
    done = at
  text += "".join(sentences)[done:room]
  return head + text[1:] + tail


@pytest.mark.parametrize("length", [150, 700, 1_111, 4_000])
def test_weaving_against_sentence_by_sentence(length):
  facts = tuple(f"Fact {i} is told." for i in range(6))
  for seed in range(40):
    plan = draw_plan(np.random.default_rng(seed), facts, BACKGROUND)
    head, tail = "HEAD\n", "\nTAIL"
    woven = weave(
      plan,
      BACKGROUND,
      TOKENIZER,
      head=TOKENIZER.encode(head),
      tail=TOKENIZER.encode(tail),
      length=length,
    )
    text = TOKENIZER.decode(render(woven.splice))
    assert text == slow(plan, head, tail, length)
    for fact, place in zip(facts, woven.places, strict=True):
      assert text[place:].lstrip().startswith(fact)


def test_facts_fill_all_gaps_alike():
  """Uniform over the gaps, with replacement, in order."""
  rng = np.random.default_rng(0)
  where = [
    draw_plan(rng, ("a", "b", "c"), BACKGROUND).where for _ in range(999)
  ]
  assert all(list(w) == sorted(w) for w in where)
  counts, _ = np.histogram(np.ravel(where), bins=10, range=(0, 1))
  assert abs(counts - 299.7).max() < 70
  plan = Plan(("Fact one.", "Fact two."), (0.5, 0.5), 0)
  woven = weave(
    plan,
    BACKGROUND,
    TOKENIZER,
    head=TOKENIZER.encode(""),
    tail=TOKENIZER.encode(""),
    length=600,
  )
  assert woven.places[1] == woven.places[0] + len(" Fact one.")


@pytest.mark.parametrize("form", Form)
@pytest.mark.parametrize("task", TASKS)
def test_samples_have_the_length_and_can_be_solved(task, form):
  sample = sample_of(task, form)
  room = sample.max_new_tokens if form is Form.PROMPT else 0
  assert sample.length + room == 4_000
  ids = render(sample)
  assert ids.dtype == np.int32 and len(ids) == sample.length
  parts = [
    sample.segment(i, min(i + 77, len(ids))) for i in range(0, len(ids), 77)
  ]
  np.testing.assert_array_equal(np.concatenate(parts), ids)
  told, places = sample.told, sample.woven.places
  assert list(places) == sorted(places)
  for fact, place in zip(told.facts, places, strict=True):
    assert TOKENIZER.decode(ids[place:]).lstrip().startswith(fact)
  assert sample.context[0] <= places[0]
  assert places[-1] + len(told.facts[-1]) <= sample.context[1]
  answer = told.answer
  assert solve(task, told.facts, told.question) == answer
  assert 0 <= sample.depth <= 1
  assert sample.describe()["answer"] == answer


def test_a_prompt_is_the_frame_around_the_context():
  sample = sample_of("qa1", Form.PROMPT)
  frame = make_frame("qa1", sample.told.question)
  text = TOKENIZER.decode(render(sample))
  assert text.startswith(frame.head) and text.endswith(frame.tail)
  assert text[len(frame.head)] != " "
  assert sample.references == (sample.told.answer,)
  said = TOKENIZER.decode(render(sample)[list(sample.evidence)])
  (support,) = sample.told.supports
  assert said.strip() == sample.told.facts[support]
  # The longest answer in the form that is asked for fits.
  longest = "Before the bathroom the football was in the bathroom."
  assert sample.max_new_tokens > len(longest)


@pytest.mark.parametrize("task", TASKS)
def test_a_forced_sample_ends_with_its_answer(task):
  sample = sample_of(task)
  ids = render(sample)
  told, answer = sample.told, sample.answer
  assert ids[-1] == TOKENIZER.eos_id
  text = TOKENIZER.decode(ids)
  assert text.endswith(f" {told.question.strip()} {told.answer}")
  assert TOKENIZER.decode(ids[answer.positions]) == f" {told.answer}"
  np.testing.assert_array_equal(ids[answer.positions], answer.gold)
  assert (answer.sources < answer.positions).all()
  fact = told.facts[key_fact(told)]
  if f" {told.answer}" in f" {fact}":
    np.testing.assert_array_equal(ids[answer.sources], answer.gold)
  else:
    assert {chr(ids[i]) for i in answer.sources} == {"."}


def test_the_key_fact_says_the_answer():
  facts = ("Mary went to the office.", "Mary got the milk there.")
  assert key_fact(Told(facts, "Where is the milk? ", "office", (1, 0))) == 0
  assert key_fact(Told(facts, "Is Mary in the office? ", "yes", (0, 1))) == 1


def test_samples_are_paired_over_lengths():
  for form in Form:
    short, long = (
      sample_of("qa2", form, number=8, length=n) for n in (3_000, 90_000)
    )
    assert short.told == long.told and short.first == long.first
    assert abs(short.depth - long.depth) < 0.1
    assert long.unique_fraction < 0.03 < short.unique_fraction


def test_stories_that_do_not_fit_are_passed_over():
  maker = Maker("qa3", Form.FORCED, TOKENIZER)
  length = min_length(maker, OwnStories())
  told = [sample_of("qa3", number=i, length=length).told for i in range(20)]
  assert all(maker.need(t) <= length for t in told)
  needs = sorted(maker.need(t) for t in OwnStories().examples("qa3"))
  assert sum(n <= length for n in needs) >= len(needs) / 2
  assert sum(n < length for n in needs) <= len(needs) / 2
  with pytest.raises(ValueError, match="qa1: no story fits"):
    sample_of("qa1", length=50)


def test_samples_depend_on_seed_number_and_task_alone():
  one = sample_of("qa1", number=5)
  np.testing.assert_array_equal(render(one), render(sample_of("qa1", number=5)))
  assert one.told != sample_of("qa1", number=6).told
  assert one.told != sample_of("qa1", number=5, seed=1).told


def test_training_rows_are_never_evaluation_samples():
  """Streams of another purpose have another key: they share no state."""
  purposes = [TRAIN, *(f"{EVAL} babilong {task}" for task in TASKS)]
  keys = {zlib.crc32(purpose.encode()) for purpose in purposes}
  assert len(keys) == len(purposes)
  row = draw_training_row(
    make_rng(0, TRAIN, 3, 0), 500, BACKGROUND, TOKENIZER, "qa1"
  )
  assert row.length == 500 and render(row)[-1] == TOKENIZER.eos_id
  trained = {
    draw_training_row(
      make_rng(0, TRAIN, i, 0), 500, BACKGROUND, TOKENIZER, "qa1"
    ).told
    for i in range(300)
  }
  tested = {sample_of("qa1", number=i, length=500).told for i in range(300)}
  longer = {t for t in trained & tested if len(t.facts) > 2}
  assert len(tested) > 250 and not longer


def test_32m_tokens_cost_no_more_than_a_page():
  for task in ("qa1", "qa3", "qa5"):
    for form in Form:
      tracemalloc.start()
      start = time.process_time()
      sample = sample_of(task, form, length=32 << 20)
      for at in (0, 12_345_678, sample.length - 4_096):
        assert len(sample.segment(at, at + 4_096)) == 4_096
      seconds = time.process_time() - start
      _, peak = tracemalloc.get_traced_memory()
      tracemalloc.stop()
      assert seconds < 1 and peak < 20e6


def test_random_answers_are_right_by_chance():
  rng = np.random.default_rng(0)
  right = sum(
    rng.choice(LABELS["qa1"]) == sample_of("qa1", number=i).told.answer
    for i in range(300)
  )
  assert abs(right / 300 - 1 / 6) < 0.08
