"""Differences between two runs with their intervals."""

import os
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib.ticker
import numpy as np

from hsa_jax.evaluation.lengths import format_length
from hsa_jax.evaluation.plots import style


class Difference(NamedTuple):
  """A minus B at one length.

  Attributes:
    title: of the task.
    length: in tokens.
    value: A - B.
    low: lower end of the 95% interval.
    high: upper end.
    clear: whether the paired test finds a difference at 5%.
  """

  title: str
  length: int
  value: float
  low: float
  high: float
  clear: bool


def differences(
  points: Sequence[Difference],
  *,
  title: str,
  label: str,
  path: str | os.PathLike,
) -> None:
  """Writes one row per task and length; filled where the test is clear.

  Args:
    points: at least one.
    title: of the picture.
    label: what the horizontal axis is.
    path: of the PNG file.
  """
  figure = style.new_figure(7.4, 1.2 + 0.26 * len(points))
  axes = figure.subplots()
  rows = np.arange(len(points))
  tasks = list(dict.fromkeys(point.title for point in points))
  for row, point in zip(rows, points, strict=True):
    colour = style.colour(tasks.index(point.title))
    axes.plot([point.low, point.high], [row, row], color=colour, linewidth=1.6)
    axes.plot(
      point.value,
      row,
      "o",
      color=colour,
      markerfacecolor=colour if point.clear else "white",
      markersize=6,
    )
  axes.axvline(0, color="#888888", linewidth=1)
  names = [f"{p.title}  {format_length(p.length)}" for p in points]
  axes.set_yticks(rows, names)
  axes.set_ylim(len(points) - 0.4, -0.6)
  style.tidy(axes, x=label, title=title)
  axes.grid(axis="y", visible=False)
  axes.grid(axis="x", color="#dddddd", linewidth=0.8)
  axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(7))
  axes.tick_params(axis="y", length=0, labelsize=8.5)
  style.save(figure, path)
