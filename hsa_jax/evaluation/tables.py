"""The figures of a report as CSV, tidy: one observation per row."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from hsa_jax.evaluation import plots
from hsa_jax.evaluation.plots.depth import depth_bin, num_bins
from hsa_jax.evaluation.results import KEY
from hsa_jax.evaluation.runs import (
  Kind,
  Run,
  extra_fields,
  variants,
)
from hsa_jax.evaluation.scores import score_interval
from hsa_jax.evaluation.sections.score import depth_samples

_LEAD = ("run", *KEY, "metric", "score", "ci_low", "ci_high", "num_correct")
_CELL = (
  "run",
  "suite",
  "protocol",
  "task",
  "haystack",
  "needle",
  "length",
  "depth_low",
  "depth_high",
  "num_samples",
  "sum_of_scores",
  "score",
  "ci_low",
  "ci_high",
)
_ATTENTION = (
  "run",
  "task",
  "haystack",
  "needle_kind",
  "length",
  "num_samples",
  "layer",
  "begin",
  "needle",
  "needle_low",
  "needle_high",
  "context",
  "question",
  "entropy_nats",
)
_BUCKET = (
  "run",
  "task",
  "length",
  "num_samples",
  "first",
  "last",
  "num_targets",
  "nats_per_token",
  "perplexity",
)


def results_csv(runs: Sequence[Run]) -> str:
  """One row per result line; columns for every number that any line has."""
  rows = [
    {"run": run.name, **row, **extra_fields(row)}
    for run in runs
    for row in run.results
  ]
  extras = {name: None for row in rows for name in extra_fields(row)}
  extras.pop("run", None)
  return write_csv((*_LEAD, *extras), rows)


def cells_csv(runs: Sequence[Run]) -> str:
  """One row per cell of the heat maps, with its 95% interval.

  Wilson where all scores of the cell are 0 or 1, else the bootstrap.
  """
  rows = []
  for variant in variants(runs, Kind.SCORE):
    for run in runs:
      for row in _cells(depth_samples(run, variant)):
        rows.append({"run": run.name, **variant._asdict(), **row})
  return write_csv(_CELL, rows)


def positions_csv(runs: Sequence[Run]) -> str:
  """One row per position bucket of held-out text; "" if there are none."""
  rows = [
    {"run": run.name, **row, **bucket}
    for run in runs
    for row in run.results
    for bucket in row.get("buckets") or ()
  ]
  return write_csv(_BUCKET, rows) if rows else ""


def attention_csv(runs: Sequence[Run]) -> str:
  """One row per full layer and length; "" if there are none."""
  rows = [
    {"run": run.name, **row, "needle_kind": row["needle"], **line}
    for run in runs
    for row in run.results
    for line in row.get("attention") or ()
  ]
  return write_csv(_ATTENTION, rows) if rows else ""


def _cells(samples: Sequence[plots.Sample]) -> Iterable[dict[str, Any]]:
  bins = num_bins(samples)
  cells: dict[tuple[int, int], list[float]] = {}
  for sample in samples:
    cell = sample.length, depth_bin(sample.depth, bins)
    cells.setdefault(cell, []).append(sample.correct)
  for (length, depth), values in sorted(cells.items()):
    low, high = score_interval(np.array(values))
    yield {
      "length": length,
      "depth_low": depth / bins,
      "depth_high": (depth + 1) / bins,
      "num_samples": len(values),
      "sum_of_scores": sum(values),
      "score": sum(values) / len(values),
      "ci_low": low,
      "ci_high": high,
    }


def write_csv(columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> str:
  """A CSV file as text; fields that a row lacks are empty, others left out."""
  file = io.StringIO()
  writer = csv.DictWriter(
    file, columns, extrasaction="ignore", lineterminator="\n"
  )
  writer.writeheader()
  writer.writerows(rows)
  return file.getvalue()
