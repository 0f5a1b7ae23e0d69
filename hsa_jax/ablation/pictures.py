"""Pictures of a grid: accuracy, retrieval, perplexity by length, per cell."""

import os
from collections.abc import Callable, Sequence

import matplotlib.ticker
from matplotlib.axes import Axes

from hsa_jax.ablation.records import Table
from hsa_jax.ablation.summary import Point, cells_of, lengths_of
from hsa_jax.evaluation import plots
from hsa_jax.evaluation.plots import style


def accuracy(
  tables: Sequence[tuple[Table, Sequence[Point]]],
  *,
  train_length: int,
  path: str | os.PathLike[str],
) -> None:
  """Writes scores by length, a panel per task, a line per cell."""
  every = cells_of([p for _, points in tables for p in points])
  panels = [
    plots.Panel(
      table.title,
      [
        plots.Curve(cell, _points(points, cell), train_length, None)
        for cell in every
      ],
    )
    for table, points in tables
  ]
  plots.accuracy_by_length(panels, label="score", path=path)


def _points(points: Sequence[Point], cell: str) -> list[plots.Point]:
  found = []
  for point in sorted(points, key=lambda p: p.length):
    if point.cell == cell:
      mean, interval = point.value.mean, point.value.interval
      low, high = interval if interval else (mean, mean)
      found.append(plots.Point(point.length, mean, low, high))
  return found


def retrieval(
  tables: Sequence[tuple[Table, Sequence[Point]]],
  *,
  path: str | os.PathLike[str],
) -> None:
  """Writes recall@K and P(correct | recalled) side by side, a row per task."""
  figure = style.new_figure(8.4, 2.5 * len(tables) + 0.9)
  grid = figure.subplots(len(tables), 2, sharey=True, squeeze=False)
  every = cells_of(
    [p for _, points in tables for p in points if p.recall is not None]
  )
  for row, (table, points) in zip(grid, tables, strict=True):
    _lines(row[0], points, every, lambda p: p.recall)
    _lines(row[1], points, every, lambda p: p.precision)
    style.tidy(row[0], y="mean over seeds", title=f"{table.title}: recall@K")
    style.tidy(row[1], title=f"{table.title}: P(correct | recalled)")
  figure.supxlabel("context length (tokens)", fontsize=10, color=style.INK)
  handles, names = grid[0][0].get_legend_handles_labels()
  figure.legend(
    handles, names, loc="outside upper left", ncols=4, frameon=False, fontsize=9
  )
  style.save(figure, path)


def _lines(
  axes: Axes,
  points: Sequence[Point],
  every: Sequence[str],
  value: Callable[[Point], float | None],
) -> None:
  for i, cell in enumerate(every):
    mine = sorted((p for p in points if p.cell == cell), key=lambda p: p.length)
    known = [(p.length, y) for p in mine if (y := value(p)) is not None]
    axes.plot(
      [length for length, _ in known],
      [y for _, y in known],
      label=cell,
      color=style.colour(i),
      marker=style.marker(i),
      linestyle=style.line_style(i),
      markersize=4.5,
      linewidth=1.6,
    )
  style.length_axis(axes, lengths_of(points), most=6)
  axes.set_ylim(-0.04, 1.04)
  axes.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0))
  axes.tick_params(labelsize=8)


def perplexity(
  points: Sequence[Point], *, path: str | os.PathLike[str]
) -> None:
  """Writes perplexity of the same last tokens by length, a line per cell."""
  bands = []
  for cell in cells_of(points):
    mine = _points(points, cell)
    columns = zip(*mine, strict=True)
    bands.append(plots.Band(cell, *(list(column) for column in columns)))
  plots.perplexity_by_length(bands, path=path)
