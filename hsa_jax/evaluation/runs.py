"""Results folders, read: all that reports and comparisons are made of.

Suites differ in the fields that they add to a line; nothing here needs to know
a suite by name. What a line is about shows in the fields that it has.
"""

import enum
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from hsa_jax.evaluation.results import (
  KEY,
  RunInfo,
  key_of,
  latest_results,
  read_info,
  read_lines,
)


class Run(NamedTuple):
  """What the files of a results folder say.

  Attributes:
    info: what was evaluated.
    results: one line per measurement point, the latest.
    samples: prediction lines of each measurement (`key_of`), one per sample,
      the latest, in the order of their numbers.
    name: in tables; unlike that of any other run in the same report.
  """

  info: RunInfo
  results: list[dict]
  samples: dict[tuple, list[dict]]
  name: str


class Variant(NamedTuple):
  """What was measured, apart from its length and number of samples."""

  suite: str
  protocol: str
  task: str
  haystack: str
  needle: str

  @property
  def title(self) -> str:
    """`s_niah, text haystack, digits needle`; what is empty is left out."""
    parts = [self.task or self.suite]
    if self.haystack:
      parts.append(f"{self.haystack} haystack")
    if self.needle:
      parts.append(f"{self.needle} needle")
    return ", ".join(parts)

  @property
  def short(self) -> str:
    """`s_niah text digits`, where room is scarce."""
    return " ".join(p for p in (self.task, self.haystack, self.needle) if p)


class Kind(enum.StrEnum):
  """What kind of number the score of a line is."""

  SCORE = "score"  # in [0, 1], more is better
  TEXT = "text"  # nats per token
  CURVE = "curve"  # over the tokens kept, such as remembrance
  ATTENTION = "attention"  # shares of attention, by layer
  OTHER = "other"  # a score that is known by its name only


def kind_of(rows: Sequence[Mapping[str, Any]]) -> Kind:
  """The kind of the result lines of one variant, by the fields they have."""
  if any("perplexity" in row for row in rows):
    return Kind.TEXT
  if any("curve" in row for row in rows):
    return Kind.CURVE
  if any("attention" in row for row in rows):
    return Kind.ATTENTION
  scores = [row.get("score") for row in rows]
  inside = all(isinstance(s, int | float) and 0 <= s <= 1 for s in scores)
  return Kind.SCORE if inside else Kind.OTHER


def load_run(path: str | os.PathLike) -> Run:
  """Reads a results folder.

  Raises:
    ResultsError: if it is not one.
  """
  folder = pathlib.Path(path)
  info = read_info(folder)
  results = latest_results(read_lines(folder / "results.jsonl"))
  latest: dict[tuple, dict[int, dict]] = {}
  for row in read_lines(folder / "predictions.jsonl"):
    latest.setdefault(key_of(row), {})[row["sample"]] = row
  samples = {
    key: [rows[number] for number in sorted(rows)]
    for key, rows in latest.items()
  }
  return Run(info, results, samples, info.name)


def load_runs(paths: Sequence[str | os.PathLike]) -> list[Run]:
  """Reads several folders; runs of one name are told apart by their folder.

  Raises:
    ResultsError: if one of them is not a results folder.
  """
  runs = [load_run(path) for path in paths]
  names = [run.name for run in runs]
  named = []
  for path, run in zip(paths, runs, strict=True):
    alike = [p for p, r in zip(paths, runs, strict=True) if r.name == run.name]
    if names.count(run.name) > 1:
      run = run._replace(name=f"{run.name} ({_own_part(path, alike)})")
    named.append(run)
  return [
    run._replace(name=f"{run.name} #{i}")
    if any(run.name == other.name for other in named[:i])
    else run
    for i, run in enumerate(named)
  ]


def variant_of(row: Mapping[str, Any]) -> Variant:
  """What a result or prediction line is a measurement of."""
  return Variant(*(str(row[name]) for name in Variant._fields))


def variants(runs: Sequence[Run], kind: Kind) -> list[Variant]:
  """What any of the runs has results of that kind for, in order."""
  lines: dict[Variant, list[dict]] = {}
  for run in runs:
    for row in run.results:
      lines.setdefault(variant_of(row), []).append(row)
  return [variant for variant, rows in lines.items() if kind_of(rows) is kind]


def by_suite(found: Sequence[Variant]) -> dict[str, list[Variant]]:
  """The variants of each suite, in order."""
  return {
    suite: [v for v in found if v.suite == suite]
    for suite in dict.fromkeys(v.suite for v in found)
  }


def rows_of(run: Run, variant: Variant) -> list[dict]:
  """Result lines of a variant, by ascending length."""
  rows = [row for row in run.results if variant_of(row) == variant]
  return sorted(rows, key=lambda row: row["length"])


def samples_of(run: Run, rows: Iterable[Mapping[str, Any]]) -> list[dict]:
  """Prediction lines behind result lines, in the order of these."""
  return [line for row in rows for line in run.samples.get(key_of(row), ())]


def value_of(row: Mapping[str, Any]) -> float | None:
  """Score of one sample in [0, 1]; None if the line has none."""
  value = row.get("score", row.get("correct"))
  return None if value is None else float(value)


def extra_fields(row: Mapping[str, Any]) -> dict[str, float]:
  """Plain numbers of a result line beyond those that every line has."""
  known = {*KEY, *_PROVENANCE, "score", "ci_low", "ci_high", "num_correct"}
  return {
    name: value
    for name, value in row.items()
    if name not in known
    and isinstance(value, int | float)
    and not isinstance(value, bool)
  }


_PROVENANCE = ("model", "checkpoint", "step", "config_hash", "seed")


def _own_part(
  path: str | os.PathLike, alike: Sequence[str | os.PathLike]
) -> str:
  """`a` of `runs/a/eval` beside `runs/b/eval`: where the paths differ."""
  columns = zip(*(pathlib.Path(p).parts[::-1] for p in alike), strict=False)
  for own, column in zip(pathlib.Path(path).parts[::-1], columns, strict=False):
    if len(set(column)) > 1:
      return own
  return pathlib.Path(path).name
