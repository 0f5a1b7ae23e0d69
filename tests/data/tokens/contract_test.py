"""What every kind of sample promises."""

import json
import time
import tracemalloc

import numpy as np
import pytest

from hsa_jax.config import Task
from hsa_jax.data.sample import NOWHERE, render
from hsa_jax.data.tokens.catalog import make_task

from .cases import ALL, HAYSTACKS, TOKENIZER, draw, evaluate, name_of

every = pytest.mark.parametrize("source", ALL, ids=name_of)
HUGE = 1 << 25


@every
def test_length_eos_and_type(source):
  for seed in range(5):
    tokens = render(draw(source, seed))
    assert tokens.dtype == np.int32
    assert len(tokens) == draw(source, seed).length == 1_500
    assert (tokens == TOKENIZER.eos_id).sum() == 1
    assert tokens[-1] == TOKENIZER.eos_id
    assert not (tokens == TOKENIZER.pad_id).any()


@every
def test_any_stretch_equals_the_whole(source):
  sample = draw(source)
  whole = render(sample)
  for size in (1, 7, 64, 1_499, 1_500):
    parts = [
      sample.segment(at, min(at + size, 1_500)) for at in range(0, 1_500, size)
    ]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
  assert len(sample.segment(13, 13)) == 0
  with pytest.raises(ValueError, match=r"600\.\.1501 is not inside 0\.\.1500"):
    sample.segment(600, 1_501)


@every
def test_answers_stand_where_they_are_said_to(source):
  for seed in range(5):
    sample = draw(source, seed)
    tokens, answer = render(sample), sample.answer
    assert len(answer.gold) == len(answer.positions) == len(answer.sources) > 0
    assert (np.diff(answer.positions) > 0).all()
    np.testing.assert_array_equal(tokens[answer.positions], answer.gold)
    known = answer.sources != NOWHERE
    sources = answer.sources[known]
    np.testing.assert_array_equal(tokens[sources], answer.gold[known])
    assert (sources < answer.positions.min()).all()
    if source.task is not Task.FWE:
      assert known.mean() > 0.8


@every
def test_answers_are_at_the_end(source):
  """However long the sample, few logits are asked for."""
  sample = draw(source, length=100_000)
  assert 100_000 - sample.answer.positions[0] < 250


@every
def test_paired_over_lengths(source):
  for number in range(10):
    short = evaluate(source, number, 20_000)
    long = evaluate(source, number, 1 << 20)
    np.testing.assert_array_equal(short.answer.gold, long.answer.gold)
    assert short.depth == pytest.approx(long.depth, abs=1e-3)


@every
def test_depths_are_stratified(source):
  for number in range(10):
    depth = evaluate(source, number, 100_000).depth
    if source.task is Task.FWE:
      assert depth == 0
    else:
      assert number / 10 - 1e-3 <= depth <= (number + 1) / 10 + 1e-3


@every
def test_samples_seeds_and_streams_differ(source):
  drawn = [
    evaluate(source, number, 1_500, seed=seed, stream=stream)
    for number in range(5)
    for seed in range(2)
    for stream in ("a", "b")
  ]
  if source.task is Task.INDUCTION:  # one token of the answer out of 127
    rows = {render(sample).tobytes() for sample in drawn}
  else:
    rows = {sample.answer.gold.tobytes() for sample in drawn}
  # Ten random ids of a passkey are given, the last is the answer.
  assert len(rows) >= (15 if source.task is Task.PASSKEY else 20)


@every
def test_a_sample_can_be_made_alone_in_any_order(source):
  forwards = [render(evaluate(source, i, 1_500)) for i in range(4)]
  backwards = [render(evaluate(source, i, 1_500)) for i in (3, 2, 1, 0)]
  for one, other in zip(forwards, backwards[::-1], strict=True):
    np.testing.assert_array_equal(one, other)


@every
def test_min_length_is_enough(source):
  least = make_task(source, TOKENIZER).min_length
  for seed in range(20):
    assert len(render(draw(source, seed, least))) == least


@every
def test_far_below_min_length_is_refused(source):
  least = make_task(source, TOKENIZER).min_length
  if source.task is Task.NIAH:
    least -= source.num_needles * len(" long-context")  # no key longer
  with pytest.raises(ValueError, match=f"length = {least - 1}: "):
    draw(source, length=least - 1)


@every
def test_recipe_fits_a_line_of_json(source):
  sample = draw(source)
  again = json.loads(json.dumps(sample.describe()))
  assert again["length"] == 1_500
  assert len(json.dumps(again)) < 2_000


@every
def test_unique_fraction(source):
  sample = evaluate(source, 0, HUGE)
  ring = {
    "text": len(HAYSTACKS.text),
    "noise": len(HAYSTACKS.noise),
    "random": 1 << 16,
  }[source.haystack]
  if source.task is Task.FWE:
    assert sample.unique_fraction == 1
  else:
    assert sample.unique_fraction == pytest.approx(ring / HUGE, rel=1e-3)
  assert 0 < draw(source).unique_fraction <= 1


@every
def test_a_huge_sample_is_cheap(source):
  task = make_task(source, TOKENIZER)
  tracemalloc.start()
  start = time.thread_time()
  sample = evaluate(source, 5, HUGE)
  sample.segment(HUGE // 2, HUGE // 2 + 65_536)
  tail = sample.segment(HUGE - 4_096, HUGE)
  taken = time.thread_time() - start
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert taken < 1 and peak < 50e6
  offset = HUGE - 4_096
  got = tail[sample.answer.positions - offset]
  np.testing.assert_array_equal(got, sample.answer.gold)
  assert task.min_length < 1_500
