"""What holds for every task: length, stretches, pairing, depths, seeds."""

import collections
import itertools
import json
import re

import numpy as np
import pytest

from hsa_jax.data.ruler import niah, prompt
from hsa_jax.data.ruler.prompt import Chain, Fixed, TooLong, TooShort
from hsa_jax.data.ruler.tasks import LIMITS, TASKS, EssaySource

from .ruler_cases import (
  BYTE,
  ChunkTokenizer,
  install,
  make_maker,
  request,
  text_of,
)

LENGTH = 9_000
SINGLE = ("niah_single_1", "niah_single_2", "niah_multikey_2")
LONG = [name for name in TASKS if name not in LIMITS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  with pytest.MonkeyPatch.context() as patch:
    yield install(patch, tmp_path_factory.mktemp("assets"))


@pytest.fixture(scope="module")
def maker(folder):
  return make_maker(folder)


@pytest.fixture(scope="module")
def chunk(folder):
  return make_maker(folder, ChunkTokenizer())


def length_of(name):
  """The documents of the stand-ins are few."""
  return 2_000 if name.startswith("qa") else LENGTH


@pytest.mark.parametrize("name", TASKS)
def test_any_stretch_equals_the_whole(chunk, name):
  made = chunk.task(name).build(request(length_of(name), 3))
  whole = made.segment(0, made.length)
  assert whole.dtype == np.int32 and len(whole) == made.length
  rng = np.random.default_rng(0)
  cuts = np.sort(rng.integers(0, made.length + 1, 40)).tolist()
  for start, stop in itertools.pairwise([0, *cuts, made.length]):
    part = made.segment(start, stop)
    assert part.dtype == np.int32
    np.testing.assert_array_equal(part, whole[start:stop])
  for start, stop in [(-1, 3), (5, 4), (0, made.length + 1)]:
    with pytest.raises(ValueError, match="is not inside"):
      made.segment(start, stop)


@pytest.mark.parametrize("name", TASKS)
def test_every_length_is_exact(maker, chunk, name):
  task = maker.task(name)
  least = shortest(task)
  room = 400 if name in LIMITS else 4_000
  for length in [*range(least, least + 40), least + room]:
    made = task.build(request(length, 1))
    assert made.length + made.max_new_tokens == length
  made = chunk.task(name).build(request(length_of(name) - 1, 2))
  assert made.length + made.max_new_tokens == length_of(name) - 1


def shortest(task, sample=1):
  """A length from which on the sample fits, as the error says it."""
  with pytest.raises(TooShort) as caught:
    task.build(request(90, sample))
  return caught.value.needed


@pytest.mark.parametrize("name", TASKS)
def test_a_sample_can_be_made_alone(folder, maker, name):
  length = length_of(name)
  texts = [
    text_of(maker.task(name).build(request(length, i)), BYTE) for i in range(4)
  ]
  assert len(set(texts)) == 4
  alone = make_maker(folder).task(name)
  assert text_of(alone.build(request(length, 2)), BYTE) == texts[2]
  other = text_of(alone.build(request(length, 2, seed=1)), BYTE)
  assert other != texts[2]


@pytest.mark.parametrize("name", TASKS)
def test_the_recipe_fits_a_line_of_json(maker, name):
  made = maker.task(name).build(request(length_of(name)))
  again = json.loads(json.dumps(made.describe()))
  assert again["task"] == name and again["length"] == made.length


def test_streams_are_those_of_evaluation(monkeypatch, maker):
  """Purposes begin with `eval`, so that training never draws the same."""
  purposes = set()

  def record(seed, purpose, *ids):
    purposes.add(purpose)
    return np.random.default_rng([seed, *ids])

  monkeypatch.setattr(prompt, "make_rng", record)
  for name in TASKS:
    maker.task(name).build(request(length_of(name)))
  assert all(purpose.startswith("eval-ruler-") for purpose in purposes)
  for name in TASKS:
    assert any(p.startswith(f"eval-ruler-{name}") for p in purposes)


@pytest.mark.parametrize(
  "name", [n for n in TASKS if n not in ("qa_1", "qa_2")]
)
def test_samples_are_paired_over_lengths(maker, name):
  short, long = (
    maker.task(name).build(request(length, 2)) for length in (LENGTH, 13_000)
  )
  assert short.references == long.references
  assert short.depth == long.depth
  for a, b in zip(short.evidence, long.evidence, strict=True):
    assert a / short.length == pytest.approx(b / long.length, abs=0.06)


@pytest.mark.parametrize("name", [n for n in LONG if n != "vt"])
def test_depths_are_stratified(maker, name):
  for sample in range(10):
    made = maker.task(name).build(request(60_000, sample))
    assert sample / 10 <= made.depth < (sample + 1) / 10
    place = made.evidence[0] / made.length
    assert place == pytest.approx(made.depth, abs=0.03)


@pytest.mark.parametrize("name", ["niah_single_2", "niah_multiquery"])
def test_depths_among_essays_are_those_of_the_grid(maker, name):
  """40 points; all are used, and by one needle of a sample each."""
  task, used = maker.task(name), collections.Counter()
  for sample in range(40):
    made = task.build(request(60_000, sample, 40))
    points = [round(p / made.length * 39) for p in made.evidence]
    assert len(set(points)) == len(points)
    used.update(points[:1])
  assert len(used) > 36


def test_the_grid_is_rulers():
  assert len(niah.GRID) == 40 and niah.GRID[0] == 0 and niah.GRID[-1] == 100
  assert niah.GRID[1:4] == (3, 5, 8)


@pytest.mark.parametrize("name", TASKS)
def test_evidence_is_where_the_answer_is(maker, name):
  made = maker.task(name).build(request(length_of(name), 4))
  text = text_of(made, BYTE)
  places = [text[i:].lstrip() for i in made.evidence]
  if name in ("cwe", "fwe"):
    assert places == []
  elif name == "vt":
    assert [p.split()[1] for p in places] == list(made.references)
  elif name == "qa_1":
    assert places[0].startswith(made.references[0])
  elif name == "qa_2":
    assert [p.split("\n")[0] for p in places] == ["Page 4-7", "Page 4-1"]
  else:
    pairs = zip(places, made.references, strict=True)
    assert all(place.startswith(value + ".") for place, value in pairs)


def test_no_other_line_has_the_key_that_is_asked(tmp_path, monkeypatch):
  """With six keys in all, every tenth line would otherwise have it."""
  folder = install(monkeypatch, tmp_path)
  few = {"adjectives": "big\nred", "nouns": "cat\nhat\nmat", "verbs": "go"}
  words = niah.Words(*(tuple(t.split("\n")) for t in few.values()))
  task = niah.NiahTask("niah_multikey_2", BYTE.encode, words, None)
  for sample in range(5):
    made = task.build(request(8_000, 2 * sample))
    text = text_of(made, BYTE)
    query = re.search(r"number for (\S+) mentioned", text)[1]
    lines = re.findall(r"numbers for (\S+) is: (\d+)\.\n", text)
    assert [v for k, v in lines if k == query] == list(made.references)
    assert len({k for k, _ in lines}) == 6
  assert folder


def test_the_line_that_is_asked_is_never_cut(chunk, maker):
  for made, name in itertools.product(
    (chunk, maker), ("niah_multikey_2", "niah_multikey_3")
  ):
    for length in range(2_000, 2_040):
      built = made.task(name).build(request(length, 0, 100))  # the first line
      start = built.evidence[0]
      line = made._tokenizer.decode(built.segment(0, start).tolist())
      assert line.rsplit("\n", 1)[1].startswith("One of the special magic ")


def test_unique_fractions(maker):
  period, length = 90, 100_000
  made = maker.task("niah_single_1").build(request(length))
  assert made.unique_fraction == pytest.approx(period / length, rel=0.01)
  made = maker.task("niah_single_2").build(request(length))
  ring = len(maker.essay.ring)
  assert made.unique_fraction == pytest.approx(ring / length, rel=0.02)
  assert (
    maker.task("niah_multikey_2").build(request(9_000)).unique_fraction == 1
  )


@pytest.mark.parametrize("name", ["cwe", "qa_1", "qa_2"])
def test_text_that_runs_out(maker, name):
  task = maker.task(name)
  with pytest.raises(TooLong, match="enough for") as caught:
    task.build(request(10**6))
  most = caught.value.most
  if name == "cwe":
    assert task.build(request(most)).length == most - 120
  with pytest.raises(TooLong):
    task.build(request(most + 200))


def test_essays_of_the_store(folder):
  held_out = "One sentence here. Another one there! A third? " * 60
  free = make_maker(folder, source=EssaySource.ESSAY_FREE, free=held_out)
  assert free.essay.name == "essay_free"
  made = free.task("niah_single_2").build(request(2_000))
  text = text_of(made, BYTE)
  assert "afterwards.\nOne sentence here. Another" in text


def test_a_chain_of_bodies():
  sizes = (3, 0, 5, 1)
  parts = [np.arange(n) + 10 * i for i, n in enumerate(sizes)]
  chain, whole = Chain(list(map(Fixed, parts))), np.concatenate(parts)
  assert chain.length == 9
  for start, stop in itertools.combinations_with_replacement(range(10), 2):
    np.testing.assert_array_equal(chain.segment(start, stop), whole[start:stop])
