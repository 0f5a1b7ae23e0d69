"""The suite of RULER: what it scores, refuses, and tells."""

import dataclasses

import numpy as np
import pytest

from hsa_jax.data.ruler.tasks import LIMITS, TASKS, EssaySource
from hsa_jax.data.tokenizer import ByteTokenizer
from hsa_jax.evaluation import FlagError, ruler
from hsa_jax.evaluation.string_match import clean, match_all, match_part
from hsa_jax.evaluation.suite import asked_of
from tests.data.ruler_cases import install

from .helpers import make_session

K = 1024
SUITE = ruler.SUITE
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def assets(tmp_path_factory):
  with pytest.MonkeyPatch.context() as patch:
    yield str(install(patch, tmp_path_factory.mktemp("assets")))


@pytest.fixture(scope="module")
def session(assets, tmp_path_factory):
  folder = tmp_path_factory.mktemp("ruler")
  return make_session(folder, lengths=(2 * K,), samples=2, assets=assets)


def asked_with(session, **settings):
  asked = asked_of(session)
  changed = dataclasses.replace(asked.settings, **settings)
  return asked._replace(settings=changed)


def with_settings(session, **settings):
  changed = dataclasses.replace(session.settings, **settings)
  return dataclasses.replace(session, settings=changed)


@pytest.mark.parametrize(
  "text, references, every, any_of",
  [
    ("1234567.", ["1234567"], 1.0, 1.0),
    (" no 1, yes 2", ["1", "2", "3", "4"], 0.5, 1.0),
    ("", ["a"], 0.0, 0.0),
    ("ABC def", ["abc", "DEF"], 1.0, 1.0),  # case
    ("foobar", ["oba"], 1.0, 1.0),  # part of a word
    ("12\x00345", ["12345"], 0.0, 0.0),  # a control character splits
    ("12\x0034", ["12", "34"], 1.0, 1.0),
    ("a\tb", ["a b"], 0.0, 0.0),  # a tab becomes a newline
    ("a\tb", ["a\nb"], 1.0, 1.0),
    ("\x1f x \x00", ["x"], 1.0, 1.0),
    ("the answer is Paris", ["London", "paris"], 0.5, 1.0),
    ("a a a", ["a", "a"], 1.0, 1.0),  # listed twice, found twice
    ("12", ["123"], 0.0, 0.0),
  ],
)
def test_metrics(text, references, every, any_of):
  assert match_all(text, references) == every
  assert match_part(text, references) == any_of


def test_metrics_need_references():
  for match in (match_all, match_part):
    with pytest.raises(ValueError, match="no references"):
      match("text", ())


def test_cleaning():
  assert clean(" \n a\x07b\r\n ") == "a\nb"
  assert clean("\x00\x01") == ""


def engine(answer):
  """In place of the model: `answer` writes what follows a prompt."""

  def run(session, job, make, *, score, summarise):
    prompts = [make(i) for i in range(job.num_samples)]
    rows = [score(p, answer(p)) for p in prompts]
    cost = {"recall_at_k": 0.5, "tokens_per_s": 1.0}
    return {**job.key, **summarise(rows), **cost}

  return run


def oracle(prompt):
  return " " + ", ".join(prompt.references).upper() + ".\x00 And more"


def half(prompt):
  return " ".join(prompt.references[: len(prompt.references) // 2])


def guess(prompt):
  return "".join(map(str, RNG.integers(0, 10, 40)))


def silence(prompt):
  return ""


@pytest.mark.parametrize("answer, low, high", [(oracle, 1, 1), (guess, 0, 0.2)])
def test_right_answers_score_all_and_guesses_none(
  session, monkeypatch, answer, low, high
):
  monkeypatch.setattr(ruler, "run_generated_job", engine(answer))
  session = with_settings(session, lengths=(9 * K,))
  tasks = [task for task in TASKS if not task.startswith("qa")]
  jobs = SUITE.jobs(asked_with(session, lengths=(9 * K,), tasks=tuple(tasks)))
  jobs += SUITE.jobs(asked_with(session, lengths=(2 * K,), tasks=ruler.QA))
  assert [job.task for job in jobs] == list(TASKS)
  for job in jobs:
    result = SUITE.run(session, job)
    assert low <= result["score"] <= high, job.task
    assert result["ci_low"] <= result["score"] <= result["ci_high"]
    assert result["ci_high"] - result["ci_low"] > 0.1  # two samples
    assert result["metric"] == (
      "string_match_part" if job.task in ruler.QA else "string_match_all"
    )
    assert job.task in SUITE.describe(result)


@pytest.mark.parametrize(
  "task, answer, want",
  [
    ("niah_multivalue", half, 0.5),
    ("niah_multiquery", half, 0.5),
    ("vt", half, 0.4),  # two of five
    ("niah_single_1", half, 0.0),
    ("niah_single_1", silence, 0.0),
  ],
)
def test_a_part_of_the_answers_scores_a_part(
  session, monkeypatch, task, answer, want
):
  monkeypatch.setattr(ruler, "run_generated_job", engine(answer))
  (job,) = SUITE.jobs(asked_with(session, tasks=(task,)))
  assert SUITE.run(session, job)["score"] == pytest.approx(want)


def test_jobs_say_what_was_read(session):
  (one,) = SUITE.jobs(asked_with(session, tasks=("niah_single_3",)))
  assert (one.protocol, one.haystack, one.needle) == (
    "ruler-13",
    "essay",
    "uuids",
  )
  free = {"tasks": ("niah_single_3",), "essays": EssaySource.ESSAY_FREE}
  (one,) = SUITE.jobs(asked_with(session, **free))
  assert one.haystack == "essay_free"


def test_tasks_run_where_they_are_defined(session):
  """Without --tasks, those with a limit are left out beyond it."""
  jobs = SUITE.jobs(asked_with(session, lengths=(128 * K, K * K)))
  short = [job.task for job in jobs if job.length == 128 * K]
  assert short == list(TASKS)
  long = [job.task for job in jobs if job.length == K * K]
  assert long == [task for task in TASKS if task not in LIMITS]
  assert len(long) == 9


def problems(asked):
  with pytest.raises(FlagError) as caught:
    SUITE.check(asked)
  return caught.value.problems


def test_a_named_task_beyond_its_limit_is_refused(session):
  asked = asked_with(session, lengths=(4 * K, K * K), tasks=("fwe", "vt"))
  (problem,) = problems(asked)
  assert "--lengths: 1M with --tasks=fwe: defined up to 128K" in problem
  assert "same three words most often" in problem


def test_short_lengths_are_refused_with_what_is_needed(session):
  asked = asked_with(session, lengths=(K,), tasks=("vt", "niah_single_1"))
  (problem,) = problems(asked)
  assert "--lengths: 1K is too short for vt: its samples need " in problem
  need = int(problem.split("need ")[1].split(" ")[0])
  SUITE.check(asked_with(session, lengths=(need,), tasks=("vt",)))
  with pytest.raises(FlagError):
    SUITE.check(asked_with(session, lengths=(need - 90,), tasks=("vt",)))


def test_lists_that_run_out_are_refused(session):
  """The stand-in list has under a thousand words."""
  (problem,) = problems(
    asked_with(session, lengths=(9 * K, 128 * K), tasks=("cwe",))
  )
  assert "128K is too long for cwe: the word list of" in problem
  assert "is enough for" in problem


def test_missing_files_say_what_to_run(session, tmp_path):
  asked = asked_with(
    session, assets=str(tmp_path), tasks=("vt", "niah_single_1")
  )
  (problem,) = problems(asked)
  assert f"--assets={tmp_path}: the files of niah_single_1" in problem
  assert f"run: python -m hsa_jax.cli.assets fetch ruler --out={tmp_path}" in (
    problem
  )
  without = asked_with(session, assets=str(tmp_path), tasks=("vt", "fwe"))
  SUITE.check(without)


class Prefixing(ByteTokenizer):
  """Puts a space before every text, as some vocabularies do."""

  spec = "prefixing"

  def encode(self, text):
    return super().encode(" " + text)


def test_a_tokenizer_that_cannot_join_texts_is_refused(session):
  (problem,) = problems(asked_of(session)._replace(tokenizer=Prefixing()))
  assert "'prefixing' adds characters" in problem


def test_a_model_is_measured(session):
  """From the prompt to the files; a random model finds nothing."""
  session = with_settings(session, lengths=(640,), tasks=("fwe",))
  SUITE.check(asked_of(session))
  (job,) = SUITE.jobs(asked_of(session))
  result = SUITE.run(session, job)
  assert result["score"] == 0.0 and result["num_samples"] == 2
  rows = session.results.finished(job.key)
  assert [row["score"] for row in rows.values()] == [0.0, 0.0]
  for row in rows.values():
    assert row["prompt_tokens"] == 640 - 50 and len(row["references"]) == 3
    assert isinstance(row["prediction"], str)
