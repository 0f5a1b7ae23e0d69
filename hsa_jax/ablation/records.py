"""What was measured of a grid, a line per run and measurement.

Read from the runs of a workdir, or from `records.jsonl`, which holds the same
without the runs: a report can be made from either. A line counts only while its
hash is that of a run of the present grid.
"""

import json
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from hsa_jax.ablation.grid import Measure
from hsa_jax.ablation.resolve import Run
from hsa_jax.ablation.state import (
  eval_folder,
  folder_of,
  is_trained,
  read_events,
)
from hsa_jax.evaluation.lengths import parse_lengths
from hsa_jax.evaluation.results import latest_results, read_lines

RECORDS = "records.jsonl"
# Fields that have tables, and what is said of them behind the task.
FIGURES = {
  "score": "",
  "token_accuracy": ", answer tokens",
  "perplexity": ", perplexity",
}
# Of a result line; what is missing there stays missing.
KEPT = (
  "suite",
  "task",
  "haystack",
  "needle",
  "length",
  "num_samples",
  "score",
  "metric",
  "num_correct",
  "token_accuracy",
  "recall_at_k",
  "p_correct_given_recalled",
  "perplexity",
  "bits_per_byte",
  "attention",
  "buckets",
)


# Lines by what was trained and how it was evaluated.
Stored = dict[tuple[str, str], list[dict[str, Any]]]


class Table(NamedTuple):
  """A measurement and the figure of it: what a table of a report is about.

  Attributes:
    suite, task, haystack: as in result lines.
    figure: the field of the lines: the score, or the share of answer tokens.
  """

  suite: str
  task: str
  haystack: str
  figure: str

  @property
  def title(self) -> str:
    """`s_niah`, with the haystack where it is not text, and the figure."""
    other = self.haystack not in ("", "text")
    name = self.task + (f" ({self.haystack})" if other else "")
    return name + FIGURES[self.figure]


def collect(
  workdir: str | os.PathLike[str],
  runs: Sequence[Run],
  stored_in: str | os.PathLike[str] = "",
) -> list[dict[str, Any]]:
  """Lines of all runs that are trained, by cell and seed.

  Args:
    workdir: of the grid.
    runs: of the grid; lines of others are left out.
    stored_in: folder whose `records.jsonl` stands in for runs that are not in
      the workdir; by default the workdir.

  Raises:
    ResultsError: for a damaged file.
  """
  stored = read_stored(stored_in or workdir)
  found = []
  for run in runs:
    lines = _of_run(workdir, run) or stored.get(_key(run), [])
    found += [{**line, "cell": run.cell.name} for line in lines]
  return found


def read_stored(folder: str | os.PathLike[str]) -> Stored:
  """The lines of a folder's `records.jsonl`; nothing if there is none.

  Raises:
    ResultsError: for a damaged file.
  """
  stored: Stored = {}
  for line in read_lines(pathlib.Path(folder) / RECORDS):
    key = (line["hash"], line.get("eval_flags", ""))
    stored.setdefault(key, []).append(line)
  return stored


def is_stored(stored: Stored, run: Run, measures: Sequence[Measure]) -> bool:
  """Whether the lines of a run have every suite and length that is asked."""
  lines = stored.get(_key(run), [])
  there = {(str(line["suite"]), int(line["length"])) for line in lines}
  return bool(lines) and all(
    (suite, length) in there
    for measure in measures
    for suite in measure.suites.split(",")
    for length in parse_lengths(measure.lengths)
  )


def write_records(
  folder: str | os.PathLike[str],
  lines: Iterable[Mapping[str, Any]],
  runs: Iterable[Run],
) -> pathlib.Path:
  """Writes `records.jsonl`, whole or not at all.

  Args:
    folder: where; what it has of other cells and seeds stays.
    lines: of the runs.
    runs: that were asked for: their earlier lines make room.

  Raises:
    ResultsError: for a damaged file.
  """
  path = pathlib.Path(folder) / RECORDS
  asked = {(run.cell.name, run.seed) for run in runs}
  others = [
    line
    for line in read_lines(path)
    if (line["cell"], line["seed"]) not in asked
  ]
  lines = [*others, *lines]
  temporary = path.with_suffix(".tmp")
  text = "".join(json.dumps(line) + "\n" for line in lines)
  temporary.write_text(text, encoding="utf-8")
  temporary.replace(path)
  return path


def tables_of(line: Mapping[str, Any]) -> list[Table]:
  """The tables by length that a line belongs to."""
  where = (str(line["suite"]), str(line["task"]), str(line["haystack"]))
  if line.get("buckets"):
    return []  # By position, in place of length.
  names = ("perplexity",) if "perplexity" in line else FIGURES
  return [Table(*where, n) for n in names if line.get(n) is not None]


def _key(run: Run) -> tuple[str, str]:
  return run.hash, " ".join(run.cell.eval_flags)


def _of_run(workdir: str | os.PathLike[str], run: Run) -> list[dict[str, Any]]:
  folder = folder_of(workdir, run)
  if not is_trained(folder, run):
    return []
  seconds = sum(
    event["seconds"]
    for event in read_events(folder)
    if event["command"] == "train" and not event["code"]
  )
  place = eval_folder(folder, run.cell)
  results = latest_results(read_lines(place / "results.jsonl"))
  about = {
    "cell": run.cell.name,
    "seed": run.seed,
    "hash": run.hash,
    "train_s": seconds,
  }
  if run.cell.eval_flags:
    about["eval_flags"] = " ".join(run.cell.eval_flags)
  return [
    {**about, **{n: row[n] for n in KEPT if n in row and row[n] != []}}
    for row in results
  ]
