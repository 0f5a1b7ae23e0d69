"""Loss on held-out text, and how far back a context is felt."""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib.ticker
import numpy as np
from matplotlib.axes import Axes

from hsa_jax.evaluation.lengths import format_length
from hsa_jax.evaluation.plots import style


class Band(NamedTuple):
  """One run's line with its 95% band.

  Attributes:
    label: name of the run, and of the protocol where there are several.
    x: ascending, all positive.
    y: values.
    low: lower ends of the intervals; equal to `y` where none is known.
    high: upper ends.
  """

  label: str
  x: Sequence[float]
  y: Sequence[float]
  low: Sequence[float]
  high: Sequence[float]


def perplexity_by_position(
  bands: Sequence[Band], *, path: str | os.PathLike
) -> None:
  """Writes perplexity by position; `x` are the last positions of buckets."""
  figure = style.new_figure(7.2, 4.0)
  axes = figure.subplots()
  for i, band in enumerate(bands):
    x, y, low, high = (np.asarray(values, float) for values in band[1:])
    edges = np.concatenate([[max(x[0] / 2, 1)], x + 1])
    line: dict[str, Any] = {
      "color": style.colour(i),
      "linestyle": style.line_style(i),
    }
    axes.stairs(y, edges, linewidth=1.8, baseline=None, **line)
    axes.stairs(
      high, edges, baseline=low, fill=True, alpha=0.2, color=style.colour(i)
    )
    middle = np.sqrt(edges[:-1] * edges[1:])
    axes.plot(middle, y, style.marker(i), color=style.colour(i), ms=4.5)
    axes.plot(
      [],
      [],
      marker=style.marker(i),
      ms=4.5,
      label=band.label,
      **line,
    )
  style.tidy(
    axes,
    x="position in the document (tokens)",
    y="perplexity, 95% band",
    title="Perplexity by position",
  )
  _log_axis(axes, [v for band in bands for v in band.x])
  _log_values(axes, [v for band in bands for v in (*band.low, *band.high)])
  axes.use_sticky_edges = False  # else the lowest line lies on the axis
  axes.margins(x=0.02, y=0.08)
  axes.autoscale_view()
  figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
  style.save(figure, path)


def perplexity_by_length(
  bands: Sequence[Band], *, path: str | os.PathLike
) -> None:
  """Writes perplexity of the same targets behind contexts of `x` tokens."""
  figure = style.new_figure(7.2, 4.0)
  axes = figure.subplots()
  _draw_lines(axes, bands)
  style.tidy(
    axes,
    x="context length (tokens)",
    y="perplexity, 95% interval",
    title="Perplexity of the same last tokens, by context length",
  )
  style.length_axis(axes, sorted({int(v) for band in bands for v in band.x}))
  _log_values(axes, [v for band in bands for v in (*band.low, *band.high)])
  figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
  style.save(figure, path)


def remembrance(
  bands: Sequence[Band], *, label: str, path: str | os.PathLike
) -> None:
  """Writes a curve over the tokens kept, such as effective remembrance.

  Args:
    bands: `x` in tokens; values in [0, 1].
    label: what the vertical axis is.
    path: of the PNG file.
  """
  figure = style.new_figure(7.2, 4.0)
  axes = figure.subplots()
  for i, band in enumerate(bands):
    x, y, low, high = (np.asarray(values, float) for values in band[1:])
    axes.plot(
      x,
      y,
      color=style.colour(i),
      linewidth=1.8,
      label=band.label,
      marker=style.marker(i),
      ms=3.5,
    )
    axes.fill_between(x, low, high, color=style.colour(i), alpha=0.2, lw=0)
  style.tidy(axes, x="tokens kept at the end of the context", y=label)
  _log_axis(axes, [v for band in bands for v in band.x])
  axes.set_ylim(bottom=0)
  figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
  style.save(figure, path)


def _draw_lines(axes: Axes, bands: Sequence[Band]) -> None:
  for i, band in enumerate(bands):
    shift = 2 ** (0.1 * (i - (len(bands) - 1) / 2))
    x, y, low, high = (np.asarray(values, float) for values in band[1:])
    axes.errorbar(
      x * shift,
      y,
      yerr=np.maximum([y - low, high - y], 0),
      label=band.label,
      color=style.colour(i),
      marker=style.marker(i),
      linestyle=style.line_style(i),
      markersize=5,
      linewidth=1.7,
      elinewidth=1.1,
      capsize=3,
    )


def _log_axis(axes: Axes, values: Sequence[float]) -> None:
  """Powers of two as ticks, at most eleven."""
  low = int(np.floor(np.log2(max(min(values), 1))))
  high = int(np.ceil(np.log2(max(values))))
  step = -(-(high - low + 1) // 11)
  ticks = [2**k for k in range(high, low - 1, -step)][::-1]
  axes.set_xscale("log", base=2)
  axes.set_xticks(ticks, [format_length(t) for t in ticks])
  axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())


def _log_values(axes: Axes, values: Sequence[float]) -> None:
  """A logarithmic vertical axis where perplexities differ by much."""
  if max(values) > 8 * max(min(values), 1e-9):
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
    axes.yaxis.set_minor_locator(matplotlib.ticker.NullLocator())
