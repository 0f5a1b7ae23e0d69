"""The published format, read back and refused."""

import pytest

from hsa_jax.data.babi.files import BabiError, find_file, read_stories
from hsa_jax.data.babi.stories import FileStories, up_to_question

GOOD = """\
1 Mary moved to the bathroom.
2 John went to the hallway.
3 Where is Mary? \tbathroom\t1
4 Daniel went back to the hallway. 
5 Where is Daniel? \thallway\t4
1 The office is north of the kitchen.
2 The garden is south of the kitchen.
3 What is north of the kitchen?\toffice\t1
"""


def write(folder, text, name="qa1_single-supporting-fact_test.txt"):
  path = folder / name
  path.write_text(text)
  return path


def test_stories_and_questions(tmp_path):
  one, other = read_stories(write(tmp_path, GOOD))
  assert one.facts == (
    "Mary moved to the bathroom.",
    "John went to the hallway.",
    "Daniel went back to the hallway.",
  )
  assert one.questions[1] == ("Where is Daniel? ", "hallway", (2,), 3)
  assert other.questions[0].text == "What is north of the kitchen?"
  told = up_to_question(one, 0)
  assert told.facts == one.facts[:2] and told.supports == (0,)


def test_samples_are_the_questions_in_file_order(tmp_path):
  write(tmp_path, GOOD)
  stories = FileStories(str(tmp_path))

  def tell(sample, most=9):
    told, _ = stories.tell(
      "qa1", seed=0, sample=sample, fits=lambda told: len(told.facts) <= most
    )
    return told.question.strip()

  assert [tell(i) for i in range(3)] == [
    "Where is Mary?",
    "Where is Daniel?",
    "What is north of the kitchen?",
  ]
  assert tell(1, most=2) == "What is north of the kitchen?"
  with pytest.raises(ValueError, match="more stories"):
    tell(3)


@pytest.mark.parametrize(
  "line, text, problem",
  [
    (2, "1 A fact.\nno number\n", "no numbered sentence"),
    (2, "1 A fact.\n3 A fact.\n", "number 3 does not follow"),
    (2, "1 A fact.\n2 Who?\tMary\n", "2 parts between tabs"),
    (2, "1 A fact.\n2 Who? \t\t1\n", "3 parts between tabs"),
    (2, "1 A fact.\n2 Who? \tMary\t7\n", "no facts before it"),
    (1, "5 A fact.\n", "number 5 does not follow"),
  ],
)
def test_a_bad_line_is_named(tmp_path, line, text, problem):
  path = write(tmp_path, text)
  with pytest.raises(BabiError) as caught:
    read_stories(path)
  assert f"{path}, line {line}: " in str(caught.value)
  assert problem in str(caught.value)
  assert "expected N FACT" in str(caught.value)


def test_an_empty_file_and_a_missing_one(tmp_path):
  with pytest.raises(BabiError, match="no story"):
    read_stories(write(tmp_path, "\n"))
  with pytest.raises(BabiError, match="0 files qa2_.*en-10k"):
    find_file(str(tmp_path), "qa2")
  write(tmp_path, GOOD, "qa1_other_test.txt")
  with pytest.raises(BabiError, match="2 files qa1_"):
    find_file(str(tmp_path), "qa1")
