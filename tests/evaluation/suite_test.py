"""What every suite has in common."""

import dataclasses

import pytest

from hsa_jax.evaluation import SUITES, FlagError
from hsa_jax.evaluation.suite import (
  asked_of,
  check_all,
  chosen_tasks,
  make_job,
  select_suites,
  task_names,
)

from .helpers import make_session


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
  session = make_session(tmp_path_factory.mktemp("suite"), lengths=(512, 1024))
  return asked_of(session)


def with_tasks(asked, *tasks):
  return dataclasses.replace(asked.settings, tasks=tasks)


def test_tasks_narrow_the_suites_that_have_them(asked):
  tasks = ("a", "b", "c")
  assert chosen_tasks(with_tasks(asked), tasks) == tasks
  assert chosen_tasks(with_tasks(asked), tasks, default=("b",)) == ("b",)
  assert chosen_tasks(with_tasks(asked, "c", "a"), tasks) == ("a", "c")
  assert chosen_tasks(with_tasks(asked, "other"), tasks) == tasks


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
def test_jobs_belong_to_their_suite_and_differ(suite, asked):
  jobs = suite.jobs(asked)
  assert jobs and {job.suite for job in jobs} == {suite.name}
  assert len({tuple(job.key.values()) for job in jobs}) == len(jobs)
  assert suite.summary and len(set(suite.tasks)) == len(suite.tasks)


def test_suites_are_found_by_name():
  assert len({suite.name for suite in SUITES}) == len(SUITES)
  ppl, needles = select_suites(SUITES, ("ppl", "hsa_ruler"))
  assert (ppl.name, needles.name) == ("ppl", "hsa_ruler")
  assert task_names([ppl, ppl]) == ppl.tasks


def test_number_of_samples_is_that_of_the_length(asked):
  job = make_job("suite", "v1", "task", 512, asked.settings, haystack="hay")
  assert (job.num_samples, job.haystack, job.needle) == (3, "hay", "")


def test_problems_of_all_suites_are_told_together(asked):
  class Refusing:
    def __init__(self, text):
      self.text = text

    def check(self, asked):
      raise FlagError([self.text])

  with pytest.raises(FlagError) as error:
    check_all([Refusing("x"), Refusing("y"), Refusing("x")], asked)
  assert error.value.problems == ["x", "y"]
