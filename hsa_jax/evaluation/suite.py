"""What a suite is: tasks under one name, from the flags to the result lines.

A suite says what it can measure (`jobs`), refuses what it cannot before any
device is touched (`check`), measures one job at a time (`run`), and puts each
result into words (`describe`). The command knows suites by this alone; a new
one is a line in `evaluation/__init__.py`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from hsa_jax.config import Config
from hsa_jax.data.store import TokenStore
from hsa_jax.data.tokenizer import Tokenizer
from hsa_jax.evaluation.lengths import FlagError, samples_at
from hsa_jax.evaluation.session import Job, Session, Settings


class Asked(NamedTuple):
  """All that is known before a device is touched.

  Attributes:
    settings: the command line.
    tokenizer: of the checkpoint, and so of the samples.
    store: held-out text.
    cfg: of the checkpoint.
  """

  settings: Settings
  tokenizer: Tokenizer
  store: TokenStore
  cfg: Config


class Suite(Protocol):
  """One name of `--suites`."""

  @property
  def name(self) -> str:
    """Of `--suites`, and in the `suite` field of its lines."""
    ...

  @property
  def summary(self) -> str:
    """What it measures, in one line of the help."""
    ...

  @property
  def tasks(self) -> tuple[str, ...]:
    """Names of `--tasks` in order; empty where there is nothing to choose."""
    ...

  def check(self, asked: Asked) -> None:
    """Raises `FlagError` with everything that cannot be measured."""
    ...

  def jobs(self, asked: Asked) -> list[Job]:
    """One job per task, variant and length, in the order they are run."""
    ...

  def run(self, session: Session, job: Job) -> dict[str, Any]:
    """Measures one of `jobs`; returns its result line."""
    ...

  def describe(self, result: dict[str, Any]) -> str:
    """A result line in one line for the terminal."""
    ...


def asked_of(session: Session) -> Asked:
  """What a running evaluation was asked."""
  return Asked(session.settings, session.tokenizer, session.store, session.cfg)


def chosen_tasks(
  settings: Settings, tasks: Sequence[str], *, default: Sequence[str] = ()
) -> tuple[str, ...]:
  """Those of a suite's tasks that `--tasks` names, in the suite's order.

  Args:
    settings: with the names asked for, of all suites together.
    tasks: what the suite has.
    default: what it runs where none of them is named; all if empty.
  """
  named = tuple(task for task in tasks if task in settings.tasks)
  return named or tuple(default or tasks)


def make_job(
  suite: str,
  protocol: str,
  task: str,
  length: int,
  settings: Settings,
  *,
  haystack: str = "",
  needle: str = "",
) -> Job:
  """A job with the number of samples that the settings give its length."""
  count = samples_at(settings.samples, length)
  return Job(suite, protocol, task, haystack, needle, length, count)


def select_suites(
  suites: Sequence[Suite], names: Sequence[str]
) -> tuple[Suite, ...]:
  """The suites of these names, in the order of the names."""
  known = {suite.name: suite for suite in suites}
  return tuple(known[name] for name in names)


def task_names(suites: Sequence[Suite]) -> tuple[str, ...]:
  """Every task of these suites, once."""
  return tuple(dict.fromkeys(task for suite in suites for task in suite.tasks))


def check_all(suites: Sequence[Suite], asked: Asked) -> None:
  """Raises `FlagError` with the problems of every suite."""
  problems: list[str] = []
  for suite in suites:
    try:
      suite.check(asked)
    except FlagError as error:
      problems += error.problems
  if problems:
    raise FlagError(list(dict.fromkeys(problems)))
