"""BABILong: scores by hand, the suites on a tiny model, oracle and chance."""

import dataclasses
import types

import numpy as np
import pytest

from hsa_jax.data.babi.samples import Form, Maker, evaluation_sample
from hsa_jax.data.babi.stories import OwnStories
from hsa_jax.data.babi.words import LABELS, MEASURED, TASKS
from hsa_jax.data.corpora import Corpus, Document
from hsa_jax.data.sample import render
from hsa_jax.data.store import build_store
from hsa_jax.data.tokenizer import load_tokenizer
from hsa_jax.evaluation import SUITES, FlagError, Settings, babilong
from hsa_jax.evaluation.babilong_scores import strict_match, substring_match
from hsa_jax.evaluation.lengths import SampleCount
from hsa_jax.evaluation.suite import asked_of, check_all

from .helpers import make_session, make_store

TOKENIZER = load_tokenizer("byte")
WHERE = "Where is Mary? "


@pytest.mark.parametrize(
  "task, question, answer, text, strict, substring",
  [
    ("qa1", WHERE, "office", "office", 1, 1),
    ("qa1", WHERE, "office", "The most recent location is OFFICE.", 1, 1),
    ("qa1", WHERE, "office", "the offices", 1, 1),
    ("qa1", WHERE, "office", "office or kitchen", 0, 1),
    ("qa1", WHERE, "office", "kitchen", 0, 0),
    ("qa1", WHERE, "office", "", 0, 0),
    # Only what stands before the first full stop counts.
    ("qa1", WHERE, "office", "office. Not the kitchen.", 1, 1),
    ("qa1", WHERE, "office", "Well. office", 0, 1),
    ("qa1", WHERE, "office", "office\n<context>\nkitchen", 1, 1),
    ("qa1", WHERE, "office", "office <EXAMPLE> kitchen", 1, 1),
    # The published cut at "Question" never happens: the text is lower case.
    ("qa1", WHERE, "office", "office\nQuestion: is it the kitchen", 0, 1),
    # Labels of the question do not count, neither for nor against.
    (
      "qa3",
      "Where was the milk before the kitchen? ",
      "garden",
      "Before the kitchen the milk was in the garden.",
      1,
      1,
    ),
    ("qa5", "Who gave the milk to Bill? ", "Fred", "Fred gave Bill milk", 1, 1),
    ("qa5", "Who gave the milk to Bill? ", "Fred", "Fred and Jeff", 0, 1),
    ("qa5", "What did Fred give to Bill? ", "milk", "Fred gave milk", 1, 1),
    # "no" is in "not" and in "know".
    ("qa6", "Is Mary in the office? ", "yes", "yes, I know", 0, 1),
    ("qa6", "Is Mary in the office? ", "no", "She is not.", 1, 1),
    # "one" is in "none": whole words.
    ("qa7", "How many objects is Mary carrying? ", "none", "none", 1, 1),
    ("qa7", "How many objects is Mary carrying? ", "one", "none", 0, 1),
    ("qa7", "How many objects is Mary carrying? ", "one", "one or two", 0, 1),
    ("qa8", "What is Mary carrying? ", "apple,milk", "apple,milk", 1, 1),
    ("qa8", "What is Mary carrying? ", "apple,milk", "milk and apple", 1, 0),
    ("qa8", "What is Mary carrying? ", "apple,milk", "apple", 0, 0),
    ("qa8", "What is Mary carrying? ", "apple", "apple,milk", 0, 1),
    ("qa8", "What is Mary carrying? ", "nothing", "nothing", 1, 1),
    ("qa10", "Is Bill in the park? ", "maybe", "maybe", 1, 1),
    ("qa10", "Is Bill in the park? ", "maybe", "maybe not", 0, 1),
    (
      "qa19",
      "How do you go from the office to the garden?",
      "s,e",
      "s,e",
      1,
      1,
    ),
    (
      "qa19",
      "How do you go from the office to the garden?",
      "s,e",
      "e,s",
      0,
      0,
    ),
  ],
)
def test_scores_by_hand(task, question, answer, text, strict, substring):
  assert strict_match(text, answer, question, LABELS[task]) == bool(strict)
  assert substring_match(text, answer) == bool(substring)


def told(task, number):
  rng = np.random.default_rng(number)
  story, _ = OwnStories().tell(
    task, seed=0, sample=number, fits=lambda told: len(told.facts) < 60
  )
  return story, rng


@pytest.mark.parametrize("task", TASKS)
def test_the_oracle_is_always_right(task):
  for number in range(30):
    story, _ = told(task, number)
    args = (story.answer, story.question, LABELS[task])
    assert strict_match(story.answer, *args)
    assert strict_match(f" {story.answer}. More", *args)
    assert not strict_match("I cannot say", *args) or "no" in LABELS[task]


@pytest.mark.parametrize("task", ["qa1", "qa2", "qa3"])
def test_a_guess_is_right_one_time_in_six(task):
  right = 0
  for number in range(300):
    story, rng = told(task, number)
    guess = rng.choice(LABELS[task])
    right += strict_match(guess, story.answer, story.question, LABELS[task])
  assert abs(right / 300 - 1 / 6) < 0.08


def book(seed):
  rng = np.random.default_rng(seed)
  words = np.array("some people walked over hills and saw a lake there".split())
  lines = [" ".join(rng.choice(words, 9)).capitalize() for _ in range(90)]
  return ". ".join(lines) + "."


def make_prose_store(folder):
  """A store of sentences, where `make_session` looks for one."""
  docs = [
    Document(s, s, 9, lambda i=i: book(i))
    for i, s in enumerate(("train", "valid", "test"))
  ]
  corpus = Corpus("files", "prose", tuple(docs))
  return build_store(corpus, TOKENIZER, folder / "store")


def session_without_model(folder, store, **settings):
  """All that the suites ask of a session before they measure."""
  fields = {"lengths": (8_192,), "samples": 2, **settings}
  samples = (SampleCount(1, fields.pop("samples")),)
  return types.SimpleNamespace(
    settings=Settings(samples=samples, **fields),
    tokenizer=TOKENIZER,
    store=store,
    cfg=None,
    folder=folder,
  )


@pytest.fixture
def prose(tmp_path):
  store = make_prose_store(tmp_path)
  return lambda **fields: session_without_model(tmp_path, store, **fields)


def test_the_suites_are_known_and_run_qa1_to_qa5(prose):
  session = prose(lengths=(8_192,), samples=2)
  for suite, protocol in (
    (babilong.SUITE, "babilong-v1"),
    (babilong.FORCED_SUITE, "babilong-forced-v1"),
  ):
    assert suite in SUITES
    check_all([suite], asked_of(session))
    jobs = suite.jobs(asked_of(session))
    assert tuple(job.task for job in jobs) == MEASURED
    assert {job.protocol for job in jobs} == {protocol}
    assert jobs[0].haystack == "BABILong-style (own facts, own books)"
    assert jobs[0].suite == suite.name and jobs[0].needle == ""


@pytest.mark.slow
def test_prompts_are_generated_and_scored(tmp_path):
  make_prose_store(tmp_path)
  session = make_session(tmp_path, lengths=(1_500,), samples=3, tasks=("qa1",))
  (job,) = babilong.SUITE.jobs(asked_of(session))
  result = babilong.SUITE.run(session, job)
  rows = session.results.finished(job.key)
  assert sorted(rows) == [0, 1, 2]
  for number, row in rows.items():
    sample = sample_of(session, "qa1", Form.PROMPT, number, 1_500)
    assert row["gold"] == sample.told.answer
    assert row["references"] == [sample.told.answer]
    assert row["prompt_tokens"] == sample.length
    assert row["recipe"] == sample.describe()
    assert row["correct"] == strict_match(
      row["prediction"], row["gold"], sample.told.question, LABELS["qa1"]
    )
  assert result["metric"] == "babilong_strict"
  assert result["score"] == sum(r["correct"] for r in rows.values()) / 3
  assert 0 <= result["substring_score"] <= 1
  line = babilong.SUITE.describe(result)
  assert f"{result['num_correct']}/3 strict" in line and "substring" in line


@pytest.mark.slow
def test_forced_samples_are_scored(tmp_path):
  make_prose_store(tmp_path)
  session = make_session(tmp_path, lengths=(700,), samples=2, tasks=("qa4",))
  (job,) = babilong.FORCED_SUITE.jobs(asked_of(session))
  result = babilong.FORCED_SUITE.run(session, job)
  rows = session.results.finished(job.key)
  for number, row in rows.items():
    sample = sample_of(session, "qa4", Form.FORCED, number, 700)
    assert row["gold"] == f" {sample.told.answer}"
    assert row["gold_ids"] == sample.answer.gold.tolist()
  assert result["metric"] == "exact_match"
  assert "2 correct" in babilong.FORCED_SUITE.describe(result)


def sample_of(session, task, form, number, length):
  return evaluation_sample(
    Maker(task, form, session.tokenizer),
    OwnStories(),
    babilong.find_background(asked_of(session)),
    seed=session.settings.seed,
    sample=number,
    length=length,
  )


def engine(answers):
  """A generating engine whose model writes `answers(prompt)`."""

  def run(session, job, make, *, score, summarise):
    rows = []
    for number in range(job.num_samples):
      prompt = make(number)
      assert prompt.length + prompt.max_new_tokens == job.length
      rows.append(score(prompt, answers(prompt)))
    return {**job.key, **summarise(rows), "recall_at_k": 0.5, "tokens_per_s": 9}

  return run


def run_with(monkeypatch, session, answers):
  monkeypatch.setattr(babilong, "run_generated_job", engine(answers))
  suite = babilong.SUITE
  return [suite.run(session, job) for job in suite.jobs(asked_of(session))]


def test_an_oracle_is_right_and_a_guess_one_time_in_six(prose, monkeypatch):
  session = prose(lengths=(4_000,), samples=150, tasks=("qa1", "qa2", "qa4"))
  for result in run_with(
    monkeypatch, session, lambda p: f"It is {p.references[0]}. Not the garden."
  ):
    assert result["score"] == result["substring_score"] == 1.0
    assert result["ci_low"] < result["ci_high"] == 1.0
    line = babilong.SUITE.describe(result)
    assert "4000: 150/150 strict [0.98, 1.00], substring 1.00" in line
  rng = np.random.default_rng(0)
  guess = run_with(
    monkeypatch, session, lambda p: str(rng.choice(LABELS[p.task]))
  )
  # Of qa4, one label is in the question and never the answer.
  for result in guess[:2]:
    assert result["ci_low"] < 1 / 6 < result["ci_high"]
    assert result["score"] == result["substring_score"]


def test_a_forced_oracle_is_right_and_reads_its_own_context(prose):
  """The gold of a forced sample is what a reader of its tokens would say."""
  session = prose()
  for number in range(20):
    sample = sample_of(session, "qa1", Form.FORCED, number, 900)
    ids = render(sample)
    gold = sample.answer.gold
    np.testing.assert_array_equal(ids[sample.answer.sources], gold)
    np.testing.assert_array_equal(ids[sample.answer.positions], gold)


def test_short_lengths_are_refused_for_each_task(prose):
  session = prose(lengths=(256, 1_200), tasks=("qa1", "qa3"))
  with pytest.raises(FlagError) as caught:
    babilong.SUITE.check(asked_of(session))
  one, three = caught.value.problems
  assert one.startswith("--lengths: 256 too short for qa1 of babilong")
  assert three.startswith("--lengths: 256, 1200 too short for qa3")
  assert "tokens or more with this tokenizer" in one


def test_text_without_sentences_is_refused(tmp_path):
  store = make_store(tmp_path / "letters")
  session = session_without_model(tmp_path, store)
  with pytest.raises(FlagError, match="no sentence.*--babilong-books"):
    check_all([babilong.SUITE], asked_of(session))


BABI = """\
1 Mary moved to the bathroom.
2 John went to the hallway.
3 Where is Mary? \tbathroom\t1
4 Daniel went back to the hallway.
5 Where is Daniel? \thallway\t4
"""


@pytest.fixture
def published(prose, tmp_path):
  """A session with the user's own bAbI files and books."""
  facts, books = tmp_path / "en-10k", tmp_path / "books"
  facts.mkdir()
  books.mkdir()
  (facts / "qa1_single-supporting-fact_test.txt").write_text(BABI)
  (books / "one.txt").write_text(book(7))
  return prose(
    lengths=(1_500,),
    samples=2,
    tasks=("qa1",),
    babilong_facts=str(facts),
    babilong_books=str(books),
  )


def test_published_files_are_called_babilong(published):
  suite, asked = babilong.SUITE, asked_of(published)
  suite.check(asked)
  (job,) = suite.jobs(asked)
  assert job.haystack == "BABILong" and job.needle.startswith("files ")
  stories = babilong.find_stories(published.settings)
  golds = [
    stories.tell("qa1", seed=0, sample=i, fits=lambda told: True)[0].answer
    for i in range(2)
  ]
  assert golds == ["bathroom", "hallway"]
  facts_only = dataclasses.replace(published.settings, babilong_books="")
  assert babilong.data_name(facts_only) == (
    "BABILong-style (bAbI facts, own books)"
  )


def test_missing_and_too_few_published_stories_are_refused(published):
  suite, asked = babilong.SUITE, asked_of(published)

  def problems(**fields):
    settings = dataclasses.replace(asked.settings, **fields)
    with pytest.raises(FlagError) as caught:
      suite.check(asked._replace(settings=settings))
    return caught.value.problems

  (few,) = problems(samples=(SampleCount(1, 3),))
  assert few.startswith("--samples: 3 of qa1 at 1500, but only 2 questions")
  (missing,) = problems(tasks=("qa2",), lengths=(9_000,))
  assert "0 files qa2_*_test.txt" in missing
  (books,) = problems(babilong_books="/nowhere/at/all")
  assert books.startswith("--babilong-books=/nowhere/at/all: no *.txt file")
