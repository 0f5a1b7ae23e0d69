"""Suites `babilong` and `babilong_forced`: bAbI facts hidden in books.

`babilong` reads the published prompt and generates the answer; `score` is the
leaderboard's strict match, and the substring match is reported beside it.
`babilong_forced` reads context, question and answer in one pass, the form that
small models are fine-tuned on; `score` is exact match of the answer tokens.

Stories are our own and the background is the held-out split, unless the user
gives the published bAbI files and books: the field `haystack` says which.
"""

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from hsa_jax.data.babi.background import (
  Background,
  folder_background,
  store_background,
)
from hsa_jax.data.babi.files import find_file
from hsa_jax.data.babi.samples import (
  BabiPrompt,
  BabiSample,
  Form,
  Maker,
  evaluation_sample,
  min_length,
)
from hsa_jax.data.babi.stories import FileStories, OwnStories, Stories
from hsa_jax.data.babi.words import LABELS, MEASURED, TASKS
from hsa_jax.data.errors import DataError
from hsa_jax.data.sample import ForcedSample, Prompt
from hsa_jax.evaluation import scores
from hsa_jax.evaluation.babilong_scores import strict_match, substring_match
from hsa_jax.evaluation.forced import describe_forced, run_forced_job
from hsa_jax.evaluation.generated import run_generated_job
from hsa_jax.evaluation.lengths import FlagError, format_length, samples_at
from hsa_jax.evaluation.session import Job, Session, Settings
from hsa_jax.evaluation.suite import Asked, asked_of, chosen_tasks, make_job

PROTOCOLS = {
  Form.PROMPT: "babilong-v1",
  Form.FORCED: "babilong-forced-v1",
}
_NAMES = {Form.PROMPT: "babilong", Form.FORCED: "babilong_forced"}
_SUMMARIES = {
  Form.PROMPT: "bAbI facts hidden in books, answers generated",
  Form.FORCED: "the same facts, answers teacher forced; for small models",
}


class Babilong:
  """One form of BABILong; see `hsa_jax.evaluation.suite.Suite`."""

  tasks = TASKS

  def __init__(self, form: Form):
    self._form = form
    self.name, self.summary = _NAMES[form], _SUMMARIES[form]

  def check(self, asked: Asked) -> None:
    """Reads stories and background, and compares every length with them."""
    settings = asked.settings
    problems = _problems_of(lambda: find_background(asked))
    for task in chosen_tasks(settings, TASKS, default=MEASURED):
      problems += _problems_of(functools.partial(self._check_task, asked, task))
    if problems:
      raise FlagError(problems)

  def jobs(self, asked: Asked) -> list[Job]:
    """Every task at every length, short ones first."""
    settings = asked.settings
    return [
      make_job(
        self.name,
        PROTOCOLS[self._form],
        task,
        length,
        settings,
        haystack=data_name(settings),
        needle=data_digest(settings, task),
      )
      for task in chosen_tasks(settings, TASKS, default=MEASURED)
      for length in settings.lengths
    ]

  def run(self, session: Session, job: Job) -> dict[str, Any]:
    """Measures one job; returns its result line."""
    maker = Maker(job.task, self._form, session.tokenizer)
    stories = find_stories(session.settings)
    background = find_background(asked_of(session))

    def make(number: int) -> BabiSample:
      return evaluation_sample(
        maker,
        stories,
        background,
        seed=session.settings.seed,
        sample=number,
        length=job.length,
      )

    if self._form is Form.FORCED:
      forced = cast(Callable[[int], ForcedSample], make)
      return run_forced_job(session, job, forced)
    prompts = cast(Callable[[int], Prompt], make)
    return run_generated_job(
      session, job, prompts, score=score_answer, summarise=summarise_answers
    )

  def describe(self, result: dict[str, Any]) -> str:
    """A result line in one line for the terminal."""
    if self._form is Form.FORCED:
      return describe_forced(result)
    kind = f"{result['task']} {result['haystack']}"
    text = (
      f"{kind} {format_length(result['length'])}:"
      f" {result['num_correct']}/{result['num_samples']} strict"
      f" [{result['ci_low']:.2f}, {result['ci_high']:.2f}],"
      f" substring {result['substring_score']:.2f}"
    )
    if result["recall_at_k"] is not None:
      text += f", recall@K {result['recall_at_k']:.2f}"
    return f"{text}, {result['tokens_per_s']:,.0f} tokens/s"

  def _check_task(self, asked: Asked, task: str) -> None:
    """Raises `FlagError` for lengths and counts that the task cannot have."""
    settings, problems = asked.settings, []
    maker = Maker(task, self._form, asked.tokenizer)
    stories = find_stories(settings)
    need = min_length(maker, stories)
    short = [n for n in settings.lengths if n < need]
    if short:
      problems.append(
        f"--lengths: {', '.join(map(format_length, short))} too short for"
        f" {task} of {self.name}: half of its stories need {need} tokens or"
        " more with this tokenizer"
      )
    for length in () if short else settings.lengths:
      count = samples_at(settings.samples, length)
      if isinstance(stories, FileStories):
        fit = sum(maker.need(t) <= length for t in stories.examples(task))
        if fit < count:
          problems.append(
            f"--samples: {count} of {task} at {format_length(length)}, but"
            f" only {fit} questions of --babilong-facts fit there"
          )
    if problems:
      raise FlagError(problems)


SUITE = Babilong(Form.PROMPT)
FORCED_SUITE = Babilong(Form.FORCED)


def find_stories(settings: Settings) -> Stories:
  """The published stories if the user has them, else our own."""
  if folder := settings.babilong_facts:
    return _file_stories(folder)
  return OwnStories()


@functools.lru_cache(maxsize=1)
def _file_stories(folder: str) -> FileStories:
  return FileStories(folder)


def find_background(asked: Asked) -> Background:
  """The user's books, else the held-out split of the store.

  Raises:
    DataError: no sentence in them.
  """
  if folder := asked.settings.babilong_books:
    return folder_background(folder, asked.tokenizer)
  return store_background(asked.store, asked.tokenizer, "test")


def data_name(settings: Settings) -> str:
  """What the samples may be called, for the field `haystack`."""
  facts, books = settings.babilong_facts, settings.babilong_books
  if facts and books:
    return "BABILong"
  facts_name = "bAbI facts" if facts else "own facts"
  books_name = "given books" if books else "own books"
  return f"BABILong-style ({facts_name}, {books_name})"


def data_digest(settings: Settings, task: str) -> str:
  """Short hash of the user's files, so that others are other jobs; or empty."""
  files = []
  if settings.babilong_facts:
    files.append(find_file(settings.babilong_facts, task))
  if settings.babilong_books:
    folder = Path(settings.babilong_books).expanduser()
    files += sorted(folder.glob("*.txt"))
  return f"files {_digest(tuple(files))}" if files else ""


@functools.lru_cache(maxsize=len(TASKS))
def _digest(files: tuple[Path, ...]) -> str:
  digest = hashlib.sha256()
  for file in files:
    digest.update(hashlib.sha256(file.read_bytes()).digest())
  return digest.hexdigest()[:12]


def score_answer(prompt: Prompt, text: str) -> Mapping[str, Any]:
  """Both matches of one generated answer."""
  assert isinstance(prompt, BabiPrompt), "prompts of this suite"
  told, labels = prompt.told, LABELS[prompt.task]
  strict = strict_match(text, told.answer, told.question, labels)
  return {
    "gold": told.answer,
    "correct": strict,
    "substring_correct": substring_match(text, told.answer),
  }


def summarise_answers(rows: Sequence[dict]) -> Mapping[str, Any]:
  """Both scores with their Wilson intervals."""
  strict = sum(row["correct"] for row in rows)
  lax = sum(row["substring_correct"] for row in rows)
  interval = scores.wilson(strict, len(rows))
  lax_interval = scores.wilson(lax, len(rows))
  return {
    "score": strict / len(rows),
    "ci_low": interval.low,
    "ci_high": interval.high,
    "metric": "babilong_strict",
    "num_correct": strict,
    "substring_score": lax / len(rows),
    "substring_ci_low": lax_interval.low,
    "substring_ci_high": lax_interval.high,
  }


def _problems_of(check: Callable[[], object]) -> list[str]:
  """What a check has to say, as lines."""
  try:
    check()
  except FlagError as error:
    return error.problems
  except DataError as error:
    return [str(error)]
  return []
