"""Depth x length: where in the context the needles are found."""

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from hsa_jax.evaluation.lengths import format_length
from hsa_jax.evaluation.plots import style

MANY = 50  # samples per length from which on there are ten bins


class Sample(NamedTuple):
  """One needle: context length, relative depth in [0, 1], score in [0, 1]."""

  length: int
  depth: float
  correct: float


class Grid(NamedTuple):
  """Sums per depth bin (rows, shallow first) and length (columns)."""

  lengths: list[int]
  correct: np.ndarray
  total: np.ndarray


def count_cells(samples: Sequence[Sample]) -> Grid:
  """Counts samples per cell: 5 depth bins, 10 from 50 samples per length."""
  lengths = sorted({s.length for s in samples})
  bins = num_bins(samples)
  correct = np.zeros((bins, len(lengths)))
  total = np.zeros((bins, len(lengths)), int)
  for sample in samples:
    cell = depth_bin(sample.depth, bins), lengths.index(sample.length)
    total[cell] += 1
    correct[cell] += sample.correct
  return Grid(lengths, correct, total)


def num_bins(samples: Sequence[Sample]) -> int:
  """How many depth bins the samples fill."""
  counts = [0, *np.unique([s.length for s in samples], return_counts=True)[1]]
  return 10 if max(counts) >= MANY else 5


def depth_bin(depth: float, bins: int) -> int:
  """The bin that a relative depth falls into; 1.0 belongs to the last."""
  return min(max(int(depth * bins), 0), bins - 1)


def heat_maps(
  runs: Sequence[tuple[str, Sequence[Sample]]],
  *,
  title: str,
  path: str | os.PathLike,
) -> None:
  """Writes the depth x length picture of each run, one above the other.

  Each cell says `found/asked`, or the mean where scores are fractions; then
  the number of samples is in `cells.csv`.
  """
  grids = [count_cells(samples) for _, samples in runs]
  columns = max(len(grid.lengths) for grid in grids)
  height = sum(0.62 + 0.36 * len(grid.total) for grid in grids)
  figure = style.new_figure(2.1 + 0.8 * max(columns, 4), 0.9 + height)
  plots = np.ravel(figure.subplots(len(runs), 1, squeeze=False))
  for axes, (name, _), grid in zip(plots, runs, grids, strict=True):
    image = _draw(axes, grid)
    if len(runs) > 1:
      axes.set_title(name, fontsize=9, color=style.INK, loc="left")
  plots[-1].set_xlabel("context length (tokens)", color=style.INK)
  figure.suptitle(title, fontsize=10, color=style.INK)
  bar = figure.colorbar(image, ax=list(plots), pad=0.02, shrink=0.9, aspect=30)
  bar.set_label("score", color=style.INK)
  bar.ax.tick_params(labelsize=8, colors=style.INK)
  bar.outline.set_visible(False)
  style.save(figure, path)


def _draw(axes: Axes, grid: Grid):
  bins, columns = grid.total.shape
  share = np.where(grid.total > 0, grid.correct / np.maximum(grid.total, 1), 0)
  shown = np.ma.masked_array(share, grid.total == 0)
  axes.set_facecolor(style.EMPTY)
  image = axes.pcolormesh(
    shown, cmap="RdYlBu", vmin=0, vmax=1, edgecolors="white", linewidth=1.5
  )
  whole = bool((grid.correct == np.round(grid.correct)).all())
  for (row, column), total in np.ndenumerate(grid.total):
    if total:
      found = grid.correct[row, column]
      text = f"{found:.0f}/{total}" if whole else f"{found / total:.2f}"
      _write(axes, row, column, text, found / total)
  axes.invert_yaxis()
  axes.set_xticks(np.arange(columns) + 0.5, map(format_length, grid.lengths))
  edges = np.linspace(0, 100, bins + 1)
  names = [f"{a:.0f}-{b:.0f}" for a, b in zip(edges, edges[1:], strict=False)]
  axes.set_yticks(np.arange(bins) + 0.5, names)
  axes.tick_params(length=0, colors=style.INK, labelsize=9)
  axes.spines[:].set_visible(False)
  axes.set_ylabel("depth (%)", color=style.INK)
  return image


def _write(axes: Axes, row: int, column: int, text: str, mean: float) -> None:
  axes.text(
    column + 0.5,
    row + 0.5,
    text,
    ha="center",
    va="center",
    fontsize=8,
    # The ends of the colour map are dark.
    color="white" if mean < 0.12 or mean > 0.88 else style.INK,
  )
