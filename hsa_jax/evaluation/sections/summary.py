"""Tasks down, lengths across, and the one number that a suite is known by."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hsa_jax.evaluation.lengths import format_length
from hsa_jax.evaluation.pages import Cell, Table
from hsa_jax.evaluation.pages.blocks import interval_text
from hsa_jax.evaluation.runs import (
  Run,
  Variant,
  rows_of,
  samples_of,
  value_of,
)
from hsa_jax.evaluation.scores import Interval, stratified_interval


class Headline(NamedTuple):
  """The mean that a protocol publishes.

  Attributes:
    tasks: that it is the unweighted mean of.
    threshold: a length counts as effective while the mean is above it; None
      where the protocol knows no such length.
  """

  tasks: tuple[str, ...]
  threshold: float | None


# RULER: 85.6 is what Llama-2-7B reaches at 4K, the paper's bar for the
# effective length. BABILong: the leaderboard averages the first five.
_BABILONG = Headline(("qa1", "qa2", "qa3", "qa4", "qa5"), None)
HEADLINES = {
  "ruler-13": Headline(
    (
      "niah_single_1",
      "niah_single_2",
      "niah_single_3",
      "niah_multikey_1",
      "niah_multikey_2",
      "niah_multikey_3",
      "niah_multivalue",
      "niah_multiquery",
      "vt",
      "cwe",
      "fwe",
      "qa_1",
      "qa_2",
    ),
    0.856,
  ),
  "babilong-v1": _BABILONG,
  "babilong-forced-v1": _BABILONG,
}


class Mean(NamedTuple):
  """Mean over the tasks of a protocol at one length.

  Attributes:
    value: unweighted mean.
    by_task: result lines of each task that it is made of.
  """

  value: float
  by_task: dict[str, list[dict]]

  @property
  def num_tasks(self) -> int:
    return len(self.by_task)


def summary_table(runs: Sequence[Run], found: Sequence[Variant]) -> Table:
  """Scores of a suite: a line per task and run, a column per length."""
  lengths = sorted(
    {r["length"] for run in runs for v in found for r in rows_of(run, v)}
  )
  rows = [
    [*_labels(runs, run, variant.short), *_scores(run, variant, lengths)]
    for variant in found
    for run in runs
    if rows_of(run, variant)
  ]
  for protocol in dict.fromkeys(v.protocol for v in found):
    if protocol in HEADLINES:
      rows += _mean_rows(runs, found, protocol, lengths)
  names = ("task", "run") if len(runs) > 1 else ("task",)
  return Table((*names, *map(format_length, lengths)), rows)


def means(run: Run, found: Sequence[Variant], protocol: str) -> dict[int, Mean]:
  """Length -> mean over the headline's tasks that have a result there.

  Variants of one task (other haystacks) are averaged first, so that each task
  weighs the same.
  """
  tasks = HEADLINES[protocol].tasks
  lines: dict[int, dict[str, list[dict]]] = {}
  for variant in found:
    if variant.protocol == protocol and variant.task in tasks:
      for row in rows_of(run, variant):
        lines.setdefault(row["length"], {}).setdefault(variant.task, [])
        lines[row["length"]][variant.task].append(row)
  return {
    length: Mean(float(np.mean([_score(t) for t in by_task.values()])), by_task)
    for length, by_task in sorted(lines.items())
  }


def mean_interval(run: Run, mean: Mean) -> Interval | None:
  """From the samples; None if a task has no prediction lines."""
  strata = []
  for rows in mean.by_task.values():
    values = [value_of(row) for row in samples_of(run, rows)]
    known = [value for value in values if value is not None]
    if not known:
      return None
    strata.append(np.array(known))
  return stratified_interval(strata)


def effective_length(
  run: Run, found: Sequence[Variant], protocol: str
) -> int | None:
  """Longest length at which the mean of all tasks is above the threshold.

  Lengths without a result of every task do not count. None if there is none.
  """
  headline = HEADLINES[protocol]
  if headline.threshold is None:
    return None
  good = [
    length
    for length, mean in means(run, found, protocol).items()
    if mean.num_tasks == len(headline.tasks) and mean.value > headline.threshold
  ]
  return max(good, default=None)


def headline_text(
  runs: Sequence[Run], found: Sequence[Variant], protocol: str
) -> str:
  """What the mean is a mean of, and the effective length of each run."""
  headline = HEADLINES[protocol]
  text = (
    f"Mean of `{protocol}`: unweighted, over {len(headline.tasks)} tasks;"
    " where fewer have a result, their number stands behind it."
  )
  if headline.threshold is None:
    return text
  bar = f"{100 * headline.threshold:.1f}%"
  parts = []
  for run in runs:
    length = effective_length(run, found, protocol)
    what = "none" if length is None else format_length(length)
    parts.append(f"{run.name}: {what}" if len(runs) > 1 else what)
  return (
    f"{text} Effective length (the longest with the mean of all"
    f" {len(headline.tasks)} tasks above {bar}): {'; '.join(parts)}."
  )


def _labels(runs: Sequence[Run], run: Run, name: str) -> list[Cell]:
  return [Cell(name), *([Cell(run.name)] if len(runs) > 1 else [])]


def _scores(run: Run, variant: Variant, lengths: Sequence[int]) -> list[Cell]:
  rows = {row["length"]: row for row in rows_of(run, variant)}
  return [_cell(rows[n]) if n in rows else Cell("") for n in lengths]


def _cell(row: dict) -> Cell:
  """`19/20`, or the mean of fractions with its interval: never bare."""
  score = row["score"]
  if row.get("num_correct") is not None:
    text = f"{row['num_correct']}/{row['num_samples']}"
  else:
    interval = interval_text(row.get("ci_low"), row.get("ci_high"))
    text = f"{score:.2f}{interval or ' n=' + str(row['num_samples'])}"
  return Cell(text, score, score)


def _mean_rows(
  runs: Sequence[Run],
  found: Sequence[Variant],
  protocol: str,
  lengths: Sequence[int],
) -> list[list[Cell]]:
  rows, count = [], len(HEADLINES[protocol].tasks)
  for run in runs:
    by_length = means(run, found, protocol)
    if by_length:
      cells = [_mean_cell(run, by_length.get(n), count) for n in lengths]
      rows.append([*_labels(runs, run, f"mean of {protocol}"), *cells])
  return rows


def _mean_cell(run: Run, mean: Mean | None, num_tasks: int) -> Cell:
  if mean is None:
    return Cell("")
  interval = interval_text(*(mean_interval(run, mean) or (None, None)))
  part = "" if mean.num_tasks == num_tasks else f" ({mean.num_tasks} tasks)"
  if not interval and not part:
    part = f" ({num_tasks} tasks)"
  return Cell(f"{mean.value:.2f}{interval}{part}", mean.value, mean.value)


def _score(rows: Sequence[dict]) -> float:
  """Of one task: the mean over its variants."""
  return float(np.mean([row["score"] for row in rows]))
