"""What all pictures have in common: colours, axes, ticks, files."""

import os
from collections.abc import Sequence

import matplotlib.figure
import matplotlib.ticker
from matplotlib.axes import Axes

from hsa_jax.evaluation.lengths import format_length

# Colour-blind safe (Okabe and Ito), readable on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = "osD^vP"
LINES = ("-", "--", "-.", ":")
INK = "#333333"
EMPTY = "#e8e8e8"  # where nothing was measured


def new_figure(width: float, height: float) -> matplotlib.figure.Figure:
  """A figure of so many inches; needs no display."""
  return matplotlib.figure.Figure(
    figsize=(width, height), dpi=150, layout="constrained"
  )


def save(figure: matplotlib.figure.Figure, path: str | os.PathLike) -> None:
  """Writes the PNG; the same picture gives the same bytes."""
  figure.savefig(path, metadata={"Software": None})


def colour(i: int) -> str:
  """Colour of the i-th line."""
  return COLOURS[i % len(COLOURS)]


def marker(i: int) -> str:
  """Marker of the i-th line: it can be told apart without its colour."""
  return MARKERS[i % len(MARKERS)]


def line_style(i: int) -> str:
  """Stroke of the i-th line, another once the colours repeat."""
  return LINES[i // len(COLOURS) % len(LINES)]


def tidy(axes: Axes, *, x: str = "", y: str = "", title: str = "") -> None:
  """Labels, a light grid, no frame."""
  axes.grid(axis="y", color="#dddddd", linewidth=0.8)
  axes.set_axisbelow(True)
  axes.spines[["top", "right"]].set_visible(False)
  axes.tick_params(colors=INK, labelsize=9)
  axes.set_xlabel(x, color=INK)
  axes.set_ylabel(y, color=INK)
  if title:
    axes.set_title(title, fontsize=10, color=INK)


def length_axis(axes: Axes, lengths: Sequence[int], *, most: int = 10) -> None:
  """Logarithmic lengths, ticks at what was measured, at most so many."""
  step = -(-len(lengths) // most) or 1
  shown = sorted(lengths)[::-1][::step][
    ::-1
  ]  # the longest is always among them
  axes.set_xscale("log", base=2)
  axes.set_xticks(shown, [format_length(length) for length in shown])
  axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())


def short_number(value: float) -> str:
  """4096 -> `4K`; 1500 -> `1500`; 0.25 -> `0.25`."""
  return format_length(int(value)) if value == int(value) else f"{value:g}"


def mark(axes: Axes, position: float, text: str) -> None:
  """A thin vertical line with its meaning beside it."""
  axes.axvline(position, color="#999999", linewidth=0.9, linestyle=":")
  axes.annotate(
    text,
    (position, 0.5),
    xycoords=("data", "axes fraction"),
    xytext=(-3, 0),
    textcoords="offset points",
    rotation=90,
    ha="right",
    va="center",
    fontsize=7.5,
    color="#666666",
  )
