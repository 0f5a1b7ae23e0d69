"""Whether a generated answer is right: the leaderboard's rule, and a lax one.

Strict, of BABILong's leaderboard: of the text before the first full stop, the
labels that the question does not name are kept, and the right one must be the
only one. Substring, of lm-evaluation-harness: the answer occurs anywhere. They
differ by up to ten points on published outputs, so both are reported.

Source: the public repository of BABILong (Apache-2.0), `metrics.py`.
"""

import re
from collections.abc import Sequence

_ENDS = (".", "<context>", "<example>")


def strict_match(
  text: str, answer: str, question: str, labels: Sequence[str]
) -> bool:
  """Whether the answer is the only label that the text says.

  Case does not count. Labels are found as substrings, so "gardens" says
  "garden"; but where one label contains another ("none", "one") as whole words.
  An answer with several labels (`apple,milk` of qa8) asks for all and no more.

  Args:
    text: what the model wrote.
    answer: the right answer.
    question: labels in it are never the answer.
    labels: of the task.
  """
  said = text.lower()
  for end in _ENDS:
    said = said.split(end)[0]
  known = {label.lower() for label in labels}
  whole = any(a != b and a in b for a in known for b in known)
  found = _mentioned(known, said, whole)
  found -= _mentioned(known, question.lower(), whole)
  answer = answer.lower()
  # "s,e" of qa19 is a label itself.
  wanted = {answer} if answer in known else set(answer.split(","))
  return found == wanted


def substring_match(text: str, answer: str) -> bool:
  """Whether the answer occurs in the text, in any case."""
  return answer.lower() in text.lower()


def _mentioned(labels: set[str], text: str, whole: bool) -> set[str]:
  if not whole:
    return {label for label in labels if label in text}
  return {
    label for label in labels if re.search(rf"\b{re.escape(label)}\b", text)
  }
