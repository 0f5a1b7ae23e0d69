"""RULER's metrics: which reference strings a generated text contains.

Case does not matter, and a reference may be part of a longer word; both as the
published scores have it.
"""

import re
from collections.abc import Sequence

_CONTROL = re.compile(r"[\x00-\x1f]")


def clean(text: str) -> str:
  """A generated text as RULER compares it: control characters as newlines."""
  return _CONTROL.sub("\n", text.strip()).strip()


def match_all(text: str, references: Sequence[str]) -> float:
  """Share of the references that the text contains (`string_match_all`).

  Raises:
    ValueError: for no references.
  """
  found = _found(text, references)
  return sum(found) / len(found)


def match_part(text: str, references: Sequence[str]) -> float:
  """1 if the text contains any reference, else 0 (`string_match_part`).

  Raises:
    ValueError: for no references.
  """
  return float(any(_found(text, references)))


def _found(text: str, references: Sequence[str]) -> list[bool]:
  if not references:
    raise ValueError("string match: no references")
  lower = clean(text).lower()
  return [reference.lower() in lower for reference in references]
