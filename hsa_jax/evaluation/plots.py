"""The two pictures of a needle task."""

import os
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib.figure
import matplotlib.ticker
import numpy as np

from hsa_jax.evaluation.lengths import format_length

# Colour-blind safe (Okabe and Ito), readable on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = "osD^vP"
INK = "#333333"


class Sample(NamedTuple):
  """One needle: context length, relative depth in [0, 1], whether found."""

  length: int
  depth: float
  correct: bool


class Point(NamedTuple):
  """Accuracy at one length with its 95% interval."""

  length: int
  score: float
  low: float
  high: float


class Curve(NamedTuple):
  """One run's accuracy by length.

  Attributes:
    label: name of the run.
    points: by ascending length.
    train_length: longest length trained at.
    receptive_field: tokens an output can depend on; None: all.
  """

  label: str
  points: Sequence[Point]
  train_length: int
  receptive_field: int | None


class Grid(NamedTuple):
  """Counts per depth bin (rows, shallow first) and length (columns)."""

  lengths: list[int]
  correct: np.ndarray
  total: np.ndarray


def count_cells(samples: Sequence[Sample]) -> Grid:
  """Counts samples per cell: 5 depth bins, 10 from 50 samples per length."""
  lengths = sorted({s.length for s in samples})
  most = max([sum(s.length == n for s in samples) for n in lengths], default=0)
  bins = 10 if most >= 50 else 5
  correct = np.zeros((bins, len(lengths)), int)
  total = np.zeros_like(correct)
  for sample in samples:
    cell = min(int(sample.depth * bins), bins - 1), lengths.index(sample.length)
    total[cell] += 1
    correct[cell] += sample.correct
  return Grid(lengths, correct, total)


def heat_map(
  samples: Sequence[Sample], *, title: str, path: str | os.PathLike
) -> None:
  """Writes the depth x length picture; each cell says `found/asked`."""
  grid = count_cells(samples)
  bins, columns = grid.total.shape
  share = np.where(grid.total > 0, grid.correct / np.maximum(grid.total, 1), 0)
  shown = np.ma.masked_array(share, grid.total == 0)
  size = (1.6 + 0.85 * max(columns, 4), 1.7 + 0.42 * bins)
  figure = matplotlib.figure.Figure(figsize=size, dpi=150, layout="constrained")
  axes = figure.subplots()
  axes.set_facecolor("#e8e8e8")  # cells without samples
  image = axes.pcolormesh(
    shown, cmap="RdYlBu", vmin=0, vmax=1, edgecolors="white", linewidth=1.5
  )
  _write_counts(axes, grid)
  axes.invert_yaxis()
  axes.set_xticks(np.arange(columns) + 0.5, map(format_length, grid.lengths))
  edges = np.linspace(0, 100, bins + 1)
  names = [f"{a:.0f}-{b:.0f}" for a, b in zip(edges, edges[1:], strict=False)]
  axes.set_yticks(np.arange(bins) + 0.5, names)
  axes.tick_params(length=0, colors=INK, labelsize=9)
  axes.spines[:].set_visible(False)
  axes.set_xlabel("context length (tokens)", color=INK)
  axes.set_ylabel("depth of the needle (%)", color=INK)
  axes.set_title(title, fontsize=10, color=INK)
  bar = figure.colorbar(image, ax=axes, pad=0.02, shrink=0.9)
  bar.set_label("exact match", color=INK)
  bar.outline.set_visible(False)
  figure.savefig(path)


def accuracy_by_length(
  curves: Sequence[Curve], *, title: str, path: str | os.PathLike
) -> None:
  """Writes accuracy against context length, a line per run with intervals."""
  figure = matplotlib.figure.Figure(
    figsize=(7.2, 4.2), dpi=150, layout="constrained"
  )
  axes = figure.subplots()
  for i, curve in enumerate(curves):
    _draw_curve(axes, curve, i, len(curves))
  for length in sorted({c.train_length for c in curves}):
    _mark(axes, length, f"trained at {format_length(length)}")
  fields = {c.receptive_field: c.label for c in curves if c.receptive_field}
  for field, label in sorted(fields.items()):
    _mark(axes, field, f"field of {label}: {field}")
  lengths = sorted({p.length for c in curves for p in c.points})
  axes.set_xscale("log", base=2)
  axes.set_xticks(lengths, map(format_length, lengths))
  axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
  axes.set_ylim(-0.04, 1.04)
  axes.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0))
  axes.grid(axis="y", color="#dddddd", linewidth=0.8)
  axes.set_axisbelow(True)
  axes.spines[["top", "right"]].set_visible(False)
  axes.tick_params(colors=INK, labelsize=9)
  axes.set_xlabel("context length (tokens)", color=INK)
  axes.set_ylabel("exact match, 95% interval", color=INK)
  axes.set_title(title, fontsize=10, color=INK)
  axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
  figure.savefig(path)


def _write_counts(axes, grid: Grid) -> None:
  for (row, column), total in np.ndenumerate(grid.total):
    if not total:
      continue
    correct = grid.correct[row, column]
    axes.text(
      column + 0.5,
      row + 0.5,
      f"{correct}/{total}",
      ha="center",
      va="center",
      fontsize=8,
      # The ends of the colour map are dark.
      color="white" if correct / total in (0, 1) else INK,
    )


def _draw_curve(axes, curve: Curve, i: int, count: int) -> None:
  # Side by side, so that intervals of equal scores do not hide one another.
  shift = 2 ** (0.12 * (i - (count - 1) / 2))
  x = np.array([p.length for p in curve.points]) * shift
  y = np.array([p.score for p in curve.points])
  spread = np.array(
    [
      [p.score - p.low for p in curve.points],
      [p.high - p.score for p in curve.points],
    ]
  )
  axes.errorbar(
    x,
    y,
    yerr=np.maximum(spread, 0),
    label=curve.label,
    color=COLOURS[i % len(COLOURS)],
    marker=MARKERS[i % len(MARKERS)],
    markersize=5,
    linewidth=1.8,
    elinewidth=1.1,
    capsize=3,
  )


def _mark(axes, length: int, text: str) -> None:
  """A thin vertical line with its meaning beside it."""
  axes.axvline(length, color="#999999", linewidth=0.9, linestyle=":")
  axes.annotate(
    text,
    (length, 0.5),
    xycoords=("data", "axes fraction"),
    xytext=(-3, 0),
    textcoords="offset points",
    rotation=90,
    ha="right",
    va="center",
    fontsize=7.5,
    color="#777777",
  )
