"""Paired comparison of two runs: the same samples, one by one.

    compare.md, compare.html   tables: A, B, difference, interval, p value
    compare.csv                the same, one row per task and length
    compare_*.png              differences with their intervals

Samples are matched by everything that names them, and refused if the two runs
did not ask the same.
"""

import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from hsa_jax.evaluation import plots
from hsa_jax.evaluation.lengths import format_length
from hsa_jax.evaluation.pages import (
  Block,
  Cell,
  Heading,
  Paragraph,
  Picture,
  Table,
  render_markdown,
)
from hsa_jax.evaluation.pages.blocks import length_cell
from hsa_jax.evaluation.paired import (
  Paired,
  compare_ratios,
  compare_scores,
  holm,
)
from hsa_jax.evaluation.report import write_file, write_pages
from hsa_jax.evaluation.results import ResultsError
from hsa_jax.evaluation.runs import (
  Kind,
  Run,
  Variant,
  load_runs,
  value_of,
  variant_of,
)
from hsa_jax.evaluation.sections import runs_table
from hsa_jax.evaluation.tables import write_csv

# Runs that differ in one of these were not asked the same.
_SAME = (
  ("seed", "evaluate both with the same --seed"),
  ("tokenizer", "only --report can show them side by side"),
  ("store", "evaluate both on the same token store"),
)
# What a prediction line says of its question.
_QUESTION = ("recipe", "gold", "references")
_CLEAR = 0.05
_NOTES = (
  "Both runs answered the same samples. 0/1 scores: exact McNemar test and"
  " Newcombe's interval for paired proportions. Fractions and nats: paired"
  " bootstrap over samples, 10,000 draws, seed 0. `p (Holm)` allows for the"
  f" number of rows; a run is named as better where it is below {_CLEAR}."
)


class Compared(NamedTuple):
  """One task at one length.

  Attributes:
    variant: what was measured.
    length: in tokens.
    kind: `SCORE` (more is better) or `TEXT` (nats per token: less is).
    paired: the comparison.
    num_a: samples of A, paired or not.
    num_b: samples of B.
    holm: p value adjusted for all rows.
  """

  variant: Variant
  length: int
  kind: Kind
  paired: Paired
  num_a: int
  num_b: int
  holm: float


def write_paired(
  first: str | os.PathLike,
  second: str | os.PathLike,
  out: str | os.PathLike | None = None,
) -> str:
  """Compares two results folders; returns the comparison as Markdown.

  Args:
    first: folder of run A.
    second: folder of run B.
    out: where the files go; None: nothing is written.

  Raises:
    ResultsError: if one is no results folder, or they cannot be paired.
  """
  runs = load_runs([first, second])
  found = compare_runs(*runs)
  top: list[Block] = [
    Heading(1, f"{runs[0].name} against {runs[1].name}"),
    runs_table(runs),
    Paragraph(_NOTES),
  ]
  if out is None:
    return render_markdown([*top, *_sections(runs, found, None)])
  folder = pathlib.Path(out)
  folder.mkdir(parents=True, exist_ok=True)
  write_file(folder / "compare.csv", compared_csv(runs, found))
  blocks = [*top, *_sections(runs, found, folder)]
  path = write_pages(folder, "compare", blocks)
  return path.read_text(encoding="utf-8")


def compare_runs(a: Run, b: Run) -> list[Compared]:
  """Every task and length of which both runs have samples, in A's order.

  Raises:
    ResultsError: if there is none, or the samples are not the same.
  """
  _check_same(a, b)
  left, right = _by_point(a), _by_point(b)
  found = []
  for point, rows in left.items():
    others = right.get(point, {})
    numbers = sorted(rows.keys() & others.keys())
    if not numbers:
      continue
    pairs = [(rows[i], others[i]) for i in numbers]
    for pair in pairs:
      _check_pair(a, b, *pair)
    paired = _compare(pairs)
    if paired is not None:
      kind = Kind.TEXT if "nats" in pairs[0][0] else Kind.SCORE
      row = pairs[0][0]
      sizes = len(rows), len(others)
      found.append(
        Compared(variant_of(row), row["length"], kind, paired, *sizes, 1.0)
      )
  if not found:
    raise ResultsError(_nothing_shared(a, b, left, right))
  adjusted = holm([row.paired.p_value for row in found])
  return [row._replace(holm=p) for row, p in zip(found, adjusted, strict=True)]


def compared_csv(runs: Sequence[Run], found: Sequence[Compared]) -> str:
  """One row per task and length."""
  rows = [
    {
      "run_a": runs[0].name,
      "run_b": runs[1].name,
      **row.variant._asdict(),
      "length": row.length,
      "metric": "nats_per_token" if row.kind is Kind.TEXT else "score",
      **row.paired._asdict(),
      "ci_low": row.paired.interval.low,
      "ci_high": row.paired.interval.high,
      "p_holm": row.holm,
    }
    for row in found
  ]
  names = [name for name in rows[0] if name != "interval"]
  return write_csv(names, rows)


def _sections(
  runs: Sequence[Run], found: Sequence[Compared], folder: pathlib.Path | None
) -> list[Block]:
  blocks: list[Block] = []
  for kind, title in (
    (Kind.SCORE, "Scores (more is better)"),
    (Kind.TEXT, "Nats per token (less is better)"),
  ):
    rows = [row for row in found if row.kind is kind]
    if rows:
      blocks += [Heading(2, title), _table(runs, rows)]
      if folder is not None:
        blocks.append(_picture(runs, rows, kind, folder))
  return blocks


def _table(runs: Sequence[Run], rows: Sequence[Compared]) -> Table:
  a, b = runs[0].name, runs[1].name
  header = (
    "task",
    "length",
    a,
    b,
    "difference [95%]",
    "p",
    "p (Holm)",
    f"higher: {a} / {b}",
    "pairs",
    "better",
  )
  return Table(header, [_line(runs, row) for row in rows])


def _line(runs: Sequence[Run], row: Compared) -> list[Cell]:
  paired = row.paired
  low, high = paired.interval
  gap = f"{paired.difference:+.3f} [{low:+.3f}, {high:+.3f}]"
  return [
    Cell(f"{row.variant.suite} {row.variant.short}"),
    length_cell(row.length),
    _mean_cell(row, paired.mean_a),
    _mean_cell(row, paired.mean_b),
    Cell(gap, paired.difference),
    Cell(p_text(paired.p_value), paired.p_value),
    Cell(p_text(row.holm), row.holm),
    Cell(f"{paired.only_a} / {paired.only_b}", paired.only_a - paired.only_b),
    _pairs_cell(row),
    Cell(_better(runs, row)),
  ]


def p_text(value: float) -> str:
  """`0.031`; `<0.001` where more digits would mean nothing."""
  return "<0.001" if value < 0.001 else f"{value:.3f}"


def _mean_cell(row: Compared, mean: float) -> Cell:
  """`19/20` for 0/1 scores, else the mean; its samples are in `pairs`."""
  count = mean * row.paired.num_pairs
  if row.kind is Kind.TEXT:
    return Cell(f"{mean:.4f}", mean)
  if "McNemar" in row.paired.method:
    return Cell(f"{count:.0f}/{row.paired.num_pairs}", mean, mean)
  return Cell(f"{mean:.3f} n={row.paired.num_pairs}", mean, mean)


def _pairs_cell(row: Compared) -> Cell:
  """How many pairs; of how many samples where some have no partner."""
  count = row.paired.num_pairs
  if count == row.num_a == row.num_b:
    return Cell(str(count), count)
  return Cell(f"{count} (of {row.num_a} and {row.num_b})", count)


def _better(runs: Sequence[Run], row: Compared) -> str:
  if row.holm >= _CLEAR:
    return ""
  more = row.paired.difference > 0
  return runs[0 if more == (row.kind is Kind.SCORE) else 1].name


def _picture(
  runs: Sequence[Run],
  rows: Sequence[Compared],
  kind: Kind,
  folder: pathlib.Path,
) -> Picture:
  points = [
    plots.Difference(
      row.variant.short or row.variant.suite,
      row.length,
      row.paired.difference,
      *row.paired.interval,
      row.holm < _CLEAR,
    )
    for row in rows
  ]
  image = f"compare_{kind}.png"
  what = "nats per token" if kind is Kind.TEXT else "score"
  names = f"{runs[0].name} minus {runs[1].name}"
  plots.differences(
    points,
    title=names,
    label=f"difference in {what}, 95% interval",
    path=folder / image,
  )
  return Picture(image, f"{names}; filled: clear at {_CLEAR} after Holm")


def _by_point(run: Run) -> dict[tuple, dict[int, dict]]:
  """Measurement -> sample number -> prediction line.

  Raises:
    ResultsError: if the run has no prediction lines.
  """
  if not run.samples:
    raise ResultsError(
      f"--compare: {run.name}: no samples in predictions.jsonl; a paired test"
      " needs those of both runs; --report shows result lines side by side"
    )
  return {
    key: {row["sample"]: row for row in rows}
    for key, rows in run.samples.items()
  }


def _compare(pairs: Sequence[tuple[dict, dict]]) -> Paired | None:
  """Compares pairs of lines; None if they have nothing to compare."""
  if all("nats" in a and "nats" in b for a, b in pairs):
    return compare_ratios(
      np.array([a["nats"] for a, _ in pairs]),
      np.array([b["nats"] for _, b in pairs]),
      np.array([a["num_targets"] for a, _ in pairs]),
    )
  left, right = (
    [value_of(row) for row in side] for side in zip(*pairs, strict=True)
  )
  if None in left or None in right:
    return None
  return compare_scores(np.array(left, float), np.array(right, float))


def _check_same(a: Run, b: Run) -> None:
  for name, fix in _SAME:
    ours, theirs = a.info._asdict()[name], b.info._asdict()[name]
    if ours != theirs:
      raise ResultsError(
        f"--compare: {name}: {ours} in {a.name}, {theirs} in {b.name}: these"
        f" are not the same samples; {fix}"
      )


def _check_pair(a: Run, b: Run, one: dict, other: dict) -> None:
  """Raises `ResultsError` unless both lines are of the same question."""
  fields = [f for f in _QUESTION if f in one and f in other]
  unequal = [f for f in fields if one[f] != other[f]]
  if "num_targets" in one and one["num_targets"] != other.get("num_targets"):
    unequal.append("num_targets")
  if unequal:
    raise ResultsError(
      f"--compare: sample {one['sample']} of {one['task'] or one['suite']} at"
      f" {format_length(one['length'])} differs in {', '.join(unequal)}"
      f" between {a.name} and {b.name}: these were made by different versions;"
      " evaluate one of them again"
    )


def _nothing_shared(a: Run, b: Run, left: Any, right: Any) -> str:
  return (
    "--compare: no sample is in both runs, matched by suite, protocol, task,"
    " haystack, needle, length and number of samples;"
    f" {a.name} has {_examples(left)}; {b.name} has {_examples(right)}"
  )


def _examples(points: dict[tuple, dict]) -> str:
  shown = [
    f"{suite} {task} {format_length(length)} ({count} samples)".replace(
      "  ", " "
    )
    for suite, _, task, _, _, length, count in list(points)[:3]
  ]
  more = f" and {len(points) - 3} more" if len(points) > 3 else ""
  return ", ".join(shown) + more
