"""Time against size on two logarithmic axes, one panel beside the other."""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib.figure
import matplotlib.ticker

from hsa_jax.evaluation.lengths import format_length
from hsa_jax.evaluation.plots.style import COLOURS, INK, MARKERS


class Line(NamedTuple):
  """Points by ascending size; a bound is dashed, without marks."""

  label: str
  sizes: Sequence[int]
  seconds: Sequence[float]
  is_bound: bool = False


class Panel(NamedTuple):
  """One pair of axes; lines of one place in the list share a colour."""

  title: str
  lines: Sequence[Line]


def draw(
  panels: Sequence[Panel],
  *,
  title: str,
  size: str,
  time: str,
  path: str | os.PathLike[str],
) -> None:
  """Writes the picture; times are shown in milliseconds.

  Args:
    panels: at least one.
    title: above all of them.
    size: what the horizontal axes count.
    time: what the vertical axes measure, without the unit.
    path: of the PNG.
  """
  figure = matplotlib.figure.Figure(
    figsize=(1.5 + 4.2 * len(panels), 4.0), dpi=150, layout="constrained"
  )
  for axes, panel in zip(
    figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
  ):
    _draw_panel(axes, panel)
    axes.set_xlabel(size, color=INK)
    axes.set_ylabel(f"{time} (ms)", color=INK)
  figure.axes[-1].legend(
    frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5)
  )
  figure.suptitle(title, fontsize=10, color=INK)
  figure.savefig(path)


def _draw_panel(axes: Any, panel: Panel) -> None:
  for i, line in enumerate(panel.lines):
    _draw_line(axes, line, i)
  sizes = sorted({size for line in panel.lines for size in line.sizes})
  axes.set_xscale("log", base=2)
  axes.set_yscale("log")
  axes.set_xticks(sizes, map(format_length, sizes))
  axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
  axes.yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
  axes.yaxis.set_major_formatter("{x:g}")
  axes.yaxis.set_minor_locator(matplotlib.ticker.NullLocator())
  axes.grid(axis="y", color="#dddddd", linewidth=0.8)
  axes.set_axisbelow(True)
  axes.spines[["top", "right"]].set_visible(False)
  axes.tick_params(colors=INK, labelsize=9)
  axes.set_title(panel.title, fontsize=9, color=INK)


def _draw_line(axes: Any, line: Line, i: int) -> None:
  style = {
    "color": COLOURS[i % len(COLOURS)],
    "marker": MARKERS[i % len(MARKERS)],
    "markersize": 5,
    "linewidth": 1.8,
  }
  if line.is_bound:
    style = {"color": INK, "linestyle": "--", "linewidth": 1.2}
  milliseconds = [1e3 * seconds for seconds in line.seconds]
  axes.plot(line.sizes, milliseconds, label=line.label, **style)
