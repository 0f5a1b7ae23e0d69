"""Suite `ruler`: NVIDIA's thirteen tasks, answers generated, as `ruler-13`.

Prompts are texts in the published form, made as streams of tokens of exactly
the length asked for, the room for the answer included. Greedy decoding; the
score of a sample is the share of its references that the answer contains (any
one of them for the reading tasks). docs/ruler.md says where a task is defined.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hsa_jax.data.errors import DataError
from hsa_jax.data.ruler import assets
from hsa_jax.data.ruler.prompt import Request, TooLong, TooShort
from hsa_jax.data.ruler.tasks import (
  LIMITS,
  PROTOCOL,
  QA,
  TASKS,
  EssaySource,
  RulerTask,
  TaskMaker,
  Texts,
  haystack,
  needle,
)
from hsa_jax.data.sample import Prompt
from hsa_jax.data.store import TokenStore
from hsa_jax.data.tokenizer import Tokenizer
from hsa_jax.evaluation import scores
from hsa_jax.evaluation.generated import run_generated_job
from hsa_jax.evaluation.lengths import FlagError, format_length, samples_at
from hsa_jax.evaluation.session import Job, Session, Settings
from hsa_jax.evaluation.string_match import match_all, match_part
from hsa_jax.evaluation.suite import Asked, asked_of, chosen_tasks, make_job

_WITHOUT_FILES = ("vt", "fwe")
# Lists of words are of another kind from here on, and need more room.
_LONG_LISTS = 4096
# Every sample fits into this many bytes, so into as many tokens.
_ROOMY = 1 << 15


class Ruler:
  """All tasks at every length; see `hsa_jax.evaluation.suite.Suite`."""

  name = "ruler"
  summary = "NVIDIA's thirteen RULER tasks, answers generated"
  tasks = TASKS

  def check(self, asked: Asked) -> None:
    """Raises `FlagError` for missing files and lengths without a meaning."""
    settings = asked.settings
    chosen = chosen_tasks(settings, TASKS)
    problems = _joining_problems(asked.tokenizer) or _file_problems(
      settings, chosen
    )
    if not problems:
      for name in chosen:
        problems += _limit_problems(settings, name)
        problems += _room_problems(asked, name)
    if not problems and not self.jobs(asked):
      problems = ["--lengths: no task of ruler is defined at any of them"]
    if problems:
      raise FlagError(problems)

  def jobs(self, asked: Asked) -> list[Job]:
    """Tasks at the lengths they are defined at, short lengths first."""
    settings = asked.settings
    return [
      make_job(
        self.name,
        PROTOCOL,
        name,
        length,
        settings,
        haystack=haystack(name, settings.essays),
        needle=needle(name),
      )
      for length in settings.lengths
      for name in chosen_tasks(settings, TASKS)
      if not _beyond(name, length)
    ]

  def run(self, session: Session, job: Job) -> dict[str, Any]:
    """Measures one job; returns its result line."""
    task = _task(asked_of(session), job.task)
    match = match_part if job.task in QA else match_all

    def make(number: int) -> Prompt:
      seed = session.settings.seed
      return task.build(Request(seed, number, job.num_samples, job.length))

    def score(prompt: Prompt, text: str) -> Mapping[str, Any]:
      return {"score": match(text, prompt.references)}

    return run_generated_job(
      session,
      job,
      make,
      score=score,
      summarise=functools.partial(summarise, metric=f"string_{match.__name__}"),
    )

  def describe(self, result: dict[str, Any]) -> str:
    """A result line in one line for the terminal."""
    text = (
      f"{result['task']} {result['haystack']}"
      f" {format_length(result['length'])}: {100 * result['score']:.1f}"
      f" [{100 * result['ci_low']:.1f}, {100 * result['ci_high']:.1f}]"
      f" {result['metric']} of {result['num_samples']}"
    )
    if result["recall_at_k"] is not None:
      text += f", recall@K {result['recall_at_k']:.2f}"
    return f"{text}, {result['tokens_per_s']:,.0f} tokens/s"


SUITE = Ruler()


def summarise(rows: Sequence[dict], *, metric: str) -> dict[str, Any]:
  """Mean score in [0, 1] with its 95% interval, of all prediction lines."""
  values = np.array([row["score"] for row in rows], np.float64)
  interval = scores.score_interval(values)
  return {
    "score": float(values.mean()),
    "ci_low": interval.low,
    "ci_high": interval.high,
    "metric": metric,
  }


@functools.lru_cache(maxsize=1)
def _maker(
  tokenizer: Tokenizer, store: TokenStore, folder: str, source: EssaySource
) -> TaskMaker:
  free = np.empty(0, np.int32)
  if source is EssaySource.ESSAY_FREE:
    free = store.split("test")
  return TaskMaker(tokenizer, Texts(Path(folder), source, free))


def _task(asked: Asked, name: str) -> RulerTask:
  settings = asked.settings
  maker = _maker(asked.tokenizer, asked.store, settings.assets, settings.essays)
  return maker.task(name)


def _beyond(name: str, length: int) -> bool:
  return name in LIMITS and length > LIMITS[name].length


def _joining_problems(tokenizer: Tokenizer) -> list[str]:
  """Prompts are put together from parts, which must decode to the whole."""
  parts = ("One is here.", " Two", "\nThree")
  ids = np.concatenate([tokenizer.encode(part) for part in parts])
  if tokenizer.decode(ids.tolist()) == "".join(parts):
    return []
  return [
    f"--suites=ruler: tokenizer {tokenizer.spec!r} adds characters where texts"
    " are put together; train the model with a byte-level one"
  ]


def _file_problems(settings: Settings, chosen: Sequence[str]) -> list[str]:
  folder = Path(settings.assets)
  needing = [name for name in chosen if name not in _WITHOUT_FILES]
  if not needing or assets.is_complete(folder):
    return []
  return [
    f"--assets={folder}: the files of {', '.join(needing)} are not there; run:"
    f" {assets.command(folder)}"
  ]


def _limit_problems(settings: Settings, name: str) -> list[str]:
  """A task that is named must be defined at every length."""
  over = [n for n in settings.lengths if _beyond(name, n)]
  if not over or name not in settings.tasks:
    return []
  lengths = ", ".join(map(format_length, over))
  most = format_length(LIMITS[name].length)
  return [
    f"--lengths: {lengths} with --tasks={name}: defined up to {most} only,"
    f" because {LIMITS[name].why}"
  ]


def _room_problems(asked: Asked, name: str) -> list[str]:
  """Builds samples where it is tightest, and the longest."""
  settings = asked.settings
  lengths = [n for n in settings.lengths if not _beyond(name, n)]
  tight = {min(part) for part in _by_kind(lengths) if part}
  try:
    needed = [
      _needed(_task(asked, name), settings, length)
      for length in sorted(tight)
      if length < _ROOMY
    ]
    if max(needed, default=0):
      return [
        f"--lengths: {format_length(min(tight))} is too short for {name}: its"
        f" samples need {max(needed)} tokens with this tokenizer; give longer"
        " lengths, or name other tasks with --tasks"
      ]
    for length in lengths[-1:]:
      _task(asked, name).build(_request(settings, length, 0))
  except TooLong as error:
    return [
      f"--lengths: {format_length(lengths[-1])} is too long for {name}:"
      f" {error.what} is enough for {error.most} tokens with this tokenizer"
    ]
  except DataError as error:
    return [str(error)]
  return []


def _by_kind(lengths: Sequence[int]) -> tuple[list[int], list[int]]:
  short = [n for n in lengths if n < _LONG_LISTS]
  return short, [n for n in lengths if n >= _LONG_LISTS]


def _needed(task: RulerTask, settings: Settings, length: int) -> int:
  """Most tokens that a sample needs, if that is more than `length`; or 0."""
  needed = [0]
  for sample in range(samples_at(settings.samples, length)):
    try:
      task.build(_request(settings, length, sample))
    except TooShort as error:
      needed.append(error.needed)
  return max(needed)


def _request(settings: Settings, length: int, sample: int) -> Request:
  count = samples_at(settings.samples, length)
  return Request(settings.seed, sample, count, length)
