"""The published bAbI files, where a user has them.

    1 Mary moved to the bathroom.
    2 John went to the hallway.
    3 Where is Mary? <tab>bathroom<tab>1

Lines are numbered from 1 in each story. A question has a tab, its answer, a tab
and the numbers of the supporting lines.
"""

import functools
from collections.abc import Iterator
from pathlib import Path

from hsa_jax.data.babi.story import Question, Story
from hsa_jax.data.errors import DataError

_FORM = "N FACT, or N QUESTION<tab>ANSWER<tab>NUMBERS"


class BabiError(DataError):
  """A bAbI file is missing or malformed."""


def find_file(folder: str, task: str) -> Path:
  """`qa1_single-supporting-fact_test.txt` of a folder, for `qa1`.

  Raises:
    BabiError: there is none, or there are several.
  """
  found = sorted(Path(folder).expanduser().glob(f"{task}_*_test.txt"))
  if len(found) != 1:
    raise BabiError(
      f"--babilong-facts={folder}: {len(found)} files {task}_*_test.txt; give"
      " the folder en-10k of the bAbI tasks v1.2"
    )
  return found[0]


@functools.lru_cache(maxsize=20)
def read_stories(path: Path) -> tuple[Story, ...]:
  """All stories of a file, in order.

  Raises:
    BabiError: the file, the line and what is wrong with it.
  """
  stories, facts, questions = [], {}, []
  for line, number, text in _lines(path):
    if number == 1 and (facts or questions):
      stories.append(_story(facts, questions))
      facts, questions = {}, []
    if number != len(facts) + len(questions) + 1:
      raise _error(path, line, f"number {number} does not follow")
    if "\t" in text:
      questions.append(_question(path, line, text, facts))
    else:
      facts[number] = text
  if not facts:
    raise BabiError(f"{path}: no story in it; {_FORM}")
  return (*stories, _story(facts, questions))


def _lines(path: Path) -> Iterator[tuple[int, int, str]]:
  """Line of the file, number in the story, and text."""
  for line, raw in enumerate(path.read_text("utf-8").splitlines(), 1):
    if not raw.strip():
      continue
    number, _, text = raw.partition(" ")
    if not number.isdecimal() or not text:
      raise _error(path, line, f"{raw[:40]!r} is no numbered sentence")
    yield line, int(number), text


def _question(
  path: Path, line: int, text: str, facts: dict[int, str]
) -> Question:
  parts = text.split("\t")
  if len(parts) != 3 or not parts[1]:
    raise _error(path, line, f"{len(parts)} parts between tabs")
  order = list(facts)
  try:
    supports = tuple(order.index(int(n)) for n in parts[2].split())
  except ValueError as e:
    raise _error(path, line, f"{parts[2]!r} are no facts before it") from e
  return Question(parts[0], parts[1], supports, len(facts))


def _story(facts: dict[int, str], questions: list[Question]) -> Story:
  # Some facts of the published files end with a space.
  return Story(tuple(f.strip() for f in facts.values()), tuple(questions))


def _error(path: Path, line: int, problem: str) -> BabiError:
  return BabiError(f"{path}, line {line}: {problem}; expected {_FORM}")
