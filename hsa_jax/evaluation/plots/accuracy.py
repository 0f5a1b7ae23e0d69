"""Scores by context length, with intervals."""

import os
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib.ticker
import numpy as np
from matplotlib.axes import Axes

from hsa_jax.evaluation.lengths import format_length
from hsa_jax.evaluation.plots import style


class Point(NamedTuple):
  """A score at one length with its 95% interval."""

  length: int
  score: float
  low: float
  high: float


class Curve(NamedTuple):
  """One run's scores by length.

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


class Panel(NamedTuple):
  """One task: a curve per run, in the order of all panels."""

  title: str
  curves: Sequence[Curve]


def accuracy_by_length(
  panels: Sequence[Panel], *, label: str, path: str | os.PathLike
) -> None:
  """Writes scores against context length, a panel per task, a line per run.

  Args:
    panels: at least one, all with the same runs.
    label: of the vertical axis.
    path: of the PNG file.
  """
  columns = min(len(panels), 4 if len(panels) > 6 else 3)
  rows = -(-len(panels) // columns)
  wide = (7.2, 4.2) if len(panels) == 1 else (3.1 * columns, 2.5 * rows + 0.4)
  figure = style.new_figure(*wide)
  grid = np.ravel(figure.subplots(rows, columns, sharey=True, squeeze=False))
  for axes, panel in zip(grid, panels, strict=False):
    _draw_panel(axes, panel, large=len(panels) == 1)
  for axes in grid[len(panels) :]:
    axes.set_visible(False)
  figure.supxlabel("context length (tokens)", fontsize=10, color=style.INK)
  figure.supylabel(f"{label}, 95% interval", fontsize=10, color=style.INK)
  handles, names = grid[0].get_legend_handles_labels()
  figure.legend(
    handles, names, loc="outside upper left", ncols=3, frameon=False, fontsize=9
  )
  style.save(figure, path)


def _draw_panel(axes: Axes, panel: Panel, *, large: bool) -> None:
  for i, curve in enumerate(panel.curves):
    _draw_curve(axes, curve, i, len(panel.curves))
  lengths = sorted({p.length for c in panel.curves for p in c.points})
  style.tidy(axes, title=panel.title)
  if lengths:
    style.length_axis(axes, lengths, most=12 if large else 5)
  _mark_limits(axes, panel.curves, lengths, named=large)
  axes.set_ylim(-0.04, 1.04)
  axes.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0))
  if not large:
    axes.tick_params(labelsize=8)
    axes.title.set_fontsize(9)


def _mark_limits(
  axes: Axes, curves: Sequence[Curve], lengths: Sequence[int], *, named: bool
) -> None:
  """Where training ended, and how far a model without memory can see."""
  for length in sorted({c.train_length for c in curves}):
    style.mark(axes, length, f"trained at {format_length(length)}" * named)
  fields = {c.receptive_field: c.label for c in curves if c.receptive_field}
  for field, label in sorted(fields.items()):
    if lengths and field >= lengths[0] / 4:
      style.mark(axes, field, f"field of {label}: {field}" * named)


def _draw_curve(axes: Axes, curve: Curve, i: int, count: int) -> None:
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
    color=style.colour(i),
    marker=style.marker(i),
    linestyle=style.line_style(i),
    markersize=4.5,
    linewidth=1.7,
    elinewidth=1.1,
    capsize=2.5,
  )
