"""What the token-level suites share: variants of tasks, teacher forced.

A sample ends with its answer and eos, at exactly the length asked for; how it
is scored, `forced` says. A suite is a table from a name of `--tasks` to its
variants.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from hsa_jax.config import Haystack, SourceConfig
from hsa_jax.data.sample import Answer
from hsa_jax.data.tokenizer import Tokenizer
from hsa_jax.data.tokens.catalog import make_task
from hsa_jax.data.tokens.gca import aligned
from hsa_jax.data.tokens.layout import TokenSample, evaluation_sample
from hsa_jax.data.tokens.rings import make_haystacks
from hsa_jax.evaluation.forced import describe_forced, run_forced_job
from hsa_jax.evaluation.lengths import FlagError, format_length
from hsa_jax.evaluation.session import Job, Session, Settings
from hsa_jax.evaluation.suite import Asked, chosen_tasks, make_job

View = Callable[[Answer, Tokenizer], Answer]


def whole_answer(answer: Answer, tokenizer: Tokenizer) -> Answer:
  """All of it."""
  del tokenizer
  return answer


class Variant(NamedTuple):
  """One kind of sample, and which part of its answer is scored.

  Attributes:
    source: the sample.
    protocol: name and version of the rules; samples of one name never change.
    haystack: of the result line; empty where there is none.
    needle: of the result line: the kind of value, or what is scored.
    stream: of the random numbers; variants of one stream share their samples.
    view: the part of the answer that is scored.
    aligned: whether the answer begins with the second token of a chunk.
  """

  source: SourceConfig
  protocol: str
  haystack: str
  needle: str
  stream: str
  view: View = whole_answer
  aligned: bool = False


VariantsOf = Callable[[Settings], list[Variant]]


class TokenSuite:
  """Token-level tasks under one name; meets `Suite`."""

  def __init__(
    self,
    name: str,
    summary: str,
    table: dict[str, VariantsOf],
    *,
    default: tuple[str, ...] = (),
  ):
    """A suite of the tasks in `table`.

    Args:
      name: of `--suites`.
      summary: one line of the help.
      table: variants of every task, in the order of the tasks.
      default: what runs where `--tasks` names none of them; all if empty.
    """
    self.name, self.summary = name, summary
    self.tasks = tuple(table)
    self._table, self._default = table, default

  def check(self, asked: Asked) -> None:
    """Raises `FlagError`: a length too short, no such haystack."""
    settings = asked.settings
    problems = haystack_problems(settings)
    if not problems:
      for task, variant in self.variants(settings):
        problems += _variant_problems(task, variant, asked)
    if problems:
      raise FlagError(list(dict.fromkeys(problems)))

  def jobs(self, asked: Asked) -> list[Job]:
    """Every task and haystack at every length, short ones first."""
    return [
      make_job(
        self.name,
        variant.protocol,
        task,
        length,
        asked.settings,
        haystack=variant.haystack,
        needle=variant.needle,
      )
      for task, variant in self.variants(asked.settings)
      for length in asked.settings.lengths
    ]

  def run(self, session: Session, job: Job) -> dict[str, Any]:
    """Measures one job; returns its result line."""
    return run_forced_job(session, job, self.sample_maker(session, job))

  def describe(self, result: dict[str, Any]) -> str:
    """One line for the terminal."""
    return describe_forced(result)

  def variants(self, settings: Settings) -> Iterator[tuple[str, Variant]]:
    """All that the settings ask for, by the name of the task."""
    tasks = chosen_tasks(settings, self.tasks, default=self._default)
    for task in tasks:
      for variant in self._table[task](settings):
        yield task, variant

  def sample_maker(
    self, session: Session, job: Job
  ) -> Callable[[int], TokenSample]:
    """Makes any sample of a job by its number."""
    (variant,) = (
      variant
      for variant in self._table[job.task](session.settings)
      if (variant.haystack, variant.needle) == (job.haystack, job.needle)
    )
    tokenizer = session.tokenizer
    task = make_task(variant.source, tokenizer)
    haystacks = make_haystacks(session.store.split("test"), tokenizer)

    def draw(number: int, length: int) -> TokenSample:
      return evaluation_sample(
        task,
        haystacks,
        stream=variant.stream,
        seed=session.settings.seed,
        sample=number,
        num_samples=job.num_samples,
        length=length,
      )

    def make(number: int) -> TokenSample:
      sample = draw(number, job.length)
      if variant.aligned:
        sample = aligned(
          functools.partial(draw, number),
          length=job.length,
          every=session.prefill.chunk_size,
          filler=haystacks.of(variant.source.haystack),
        )
      return sample._replace(answer=variant.view(sample.answer, tokenizer))

    return make


def haystack_problems(settings: Settings) -> list[str]:
  """What is wrong with `--haystack` for suites that read it."""
  if Haystack.RANDOM not in settings.haystacks:
    return []
  return [
    "--haystack=random: only training rows have it; use text or noise (mqar"
    " and copying hide their ids among random ones whatever is asked)"
  ]


def length_problems(
  settings: Settings, need: int, what: str, fix: str = ""
) -> list[str]:
  """What is wrong with `--lengths` for samples of at least `need` tokens."""
  short = [n for n in settings.lengths if n < need]
  if not short:
    return []
  names = ", ".join(format_length(n) for n in short)
  return [f"--lengths: {names} too short; {what} take {need} tokens{fix}"]


def _variant_problems(task: str, variant: Variant, asked: Asked) -> list[str]:
  """Why samples of a variant cannot be made."""
  try:
    need = make_task(variant.source, asked.tokenizer).min_length
    hsa = asked.cfg.model.hsa
    if variant.aligned and hsa.num_groups:
      need += hsa.chunk_size - 1
  except ValueError as error:
    return [f"--tasks={task}: {error}; use a tokenizer with more ids"]
  needle = f" with a {variant.needle} needle" if variant.needle else ""
  what = f"question and answer of {task}"
  return length_problems(asked.settings, need, what, needle)
