"""Suite `hsa_ruler`: needles in a haystack, token level, teacher forced.

A sample ends with the question, its answer and eos, at exactly the length asked
for; how it is scored, `forced` says.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from hsa_jax.config import Haystack, SourceConfig, Task
from hsa_jax.data import tasks
from hsa_jax.data.sample import Answer
from hsa_jax.evaluation.forced import describe_forced, run_forced_job
from hsa_jax.evaluation.lengths import FlagError, format_length
from hsa_jax.evaluation.session import Job, Session, Settings
from hsa_jax.evaluation.suite import Asked, make_job

# Results are kept under this name: it never changes while samples do not.
PROTOCOL = "teacher_forced_exact_match"


class NeedleSample(NamedTuple):
  """A recipe with the rings it is cut from: a `ForcedSample`."""

  recipe: tasks.NiahRecipe
  haystacks: tasks.Haystacks

  @property
  def length(self) -> int:
    return self.recipe.length

  @property
  def depth(self) -> float:
    """Of the needle that is asked for first."""
    needle = self.recipe.needles[self.recipe.questions[0].needle]
    return min(needle.position / max(self.recipe.haystack_length, 1), 1.0)

  @property
  def unique_fraction(self) -> float:
    return tasks.unique_fraction(self.recipe, self.haystacks)

  @property
  def answer(self) -> Answer:
    """The values asked for, and where the needles have them."""
    gold, sources = [], []
    for question in self.recipe.questions:
      needle = self.recipe.needles[question.needle]
      gold.append(needle.value)
      sources.append(needle.value_position + np.arange(len(needle.value)))
    return Answer(
      tasks.answer_positions(self.recipe),
      np.concatenate(gold),
      np.concatenate(sources),
    )

  def segment(self, start: int, stop: int) -> Int[np.ndarray, " n"]:
    return tasks.segment(self.recipe, self.haystacks, start, stop)

  def describe(self) -> dict[str, Any]:
    return tasks.describe(self.recipe)


class NeedleSuite:
  """Every haystack at every length, short ones first."""

  name = "hsa_ruler"
  summary = "needles in a haystack, token level, teacher forced"
  tasks = ("s_niah",)

  def check(self, asked: Asked) -> None:
    """Raises `FlagError` if a length is too short for one question."""
    settings = asked.settings
    source = make_source(settings, settings.haystacks[0])
    need = tasks.min_length(source, asked.tokenizer)
    short = [n for n in settings.lengths if n < need]
    if short:
      names = ", ".join(format_length(n) for n in short)
      raise FlagError(
        [
          f"--lengths: {names} too short; needle, question and answer take"
          f" {need} tokens with a {settings.needle} needle"
        ]
      )

  def jobs(self, asked: Asked) -> list[Job]:
    settings = asked.settings
    return [
      make_job(
        self.name,
        PROTOCOL,
        "s_niah",
        length,
        settings,
        haystack=str(haystack),
        needle=str(settings.needle),
      )
      for haystack in settings.haystacks
      for length in settings.lengths
    ]

  def run(self, session: Session, job: Job) -> dict[str, Any]:
    return run_forced_job(session, job, sample_maker(session, job))

  def describe(self, result: dict[str, Any]) -> str:
    return describe_forced(result)


SUITE = NeedleSuite()


def make_source(settings: Settings, haystack: Haystack) -> SourceConfig:
  """The kind of sample that the settings ask for."""
  return SourceConfig(task=Task.NIAH, haystack=haystack, needle=settings.needle)


def sample_maker(session: Session, job: Job) -> Callable[[int], NeedleSample]:
  """Makes any sample of a job by its number."""
  source = make_source(session.settings, Haystack(job.haystack))
  task = tasks.NiahTask(source, session.tokenizer)
  text = session.store.split("test")
  haystacks = tasks.make_haystacks(text, session.tokenizer)

  def make(number: int) -> NeedleSample:
    recipe = tasks.evaluation_recipe(
      task,
      haystacks,
      source,
      seed=session.settings.seed,
      sample=number,
      num_samples=job.num_samples,
      length=job.length,
    )
    return NeedleSample(recipe, haystacks)

  return make
