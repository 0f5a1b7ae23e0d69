"""What a report consists of, before it is Markdown or HTML.

A report is built once, as a list of blocks. So both forms say the same, and a
section knows nothing of markup.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from hsa_jax.evaluation.lengths import format_length


class Cell(NamedTuple):
  """One cell of a table.

  Attributes:
    text: what is read.
    value: what is sorted by, if not the text.
    shade: share in [0, 1] that colours the cell; None: no colour.
  """

  text: str
  value: float | None = None
  shade: float | None = None


class Table(NamedTuple):
  """Rows of equally many cells."""

  header: Sequence[str]
  rows: Sequence[Sequence[Cell]]


class Heading(NamedTuple):
  """A heading; level 1 is the title of the page."""

  level: int
  text: str


class Paragraph(NamedTuple):
  """Running text."""

  text: str


class Facts(NamedTuple):
  """Names and values."""

  items: Sequence[tuple[str, str]]


class Picture(NamedTuple):
  """An image file beside the report."""

  file: str
  caption: str


Block = Table | Heading | Paragraph | Facts | Picture


def score_cell(row: dict) -> Cell:
  """`19/20 0.95 [0.76, 0.99]`: never a bare percentage.

  Fractional scores give their mean and the number of samples.
  """
  score = row.get("score")
  if not isinstance(score, int | float):
    return Cell("")
  interval = interval_text(row.get("ci_low"), row.get("ci_high"))
  if row.get("num_correct") is not None:
    text = f"{row['num_correct']}/{row['num_samples']} {score:.2f}{interval}"
  else:
    text = f"{score:.3f}{interval} n={row['num_samples']}"
  return Cell(text, score, score if 0 <= score <= 1 else None)


def interval_text(low: Any, high: Any) -> str:
  """` [0.76, 0.99]` with a leading space; "" without an interval."""
  if not isinstance(low, int | float) or not isinstance(high, int | float):
    return ""
  return f" [{low:.2f}, {high:.2f}]"


def length_cell(length: int) -> Cell:
  """A context length, sorted by its number of tokens."""
  return Cell(format_length(length), length)


def number_cell(value: Any, spec: str) -> Cell:
  """A number in a format, or nothing for None."""
  if value is None or (isinstance(value, float) and math.isnan(value)):
    return Cell("")
  return Cell(format(value, spec), float(value))


def bytes_cell(count: Any) -> Cell:
  """A number of bytes, or nothing for None."""
  return Cell("") if count is None else Cell(format_bytes(count), float(count))


def format_bytes(count: int) -> str:
  """1536 -> `1.5 KiB`."""
  size, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
  while size >= 1024 and len(units) > 1:
    size, units = size / 1024, units[1:]
  return f"{size:.3g} {units[0]}"
