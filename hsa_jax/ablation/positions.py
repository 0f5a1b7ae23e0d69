"""Perplexity by position, a line per cell: where a context stops to help."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from hsa_jax.ablation.cells import value_cell
from hsa_jax.ablation.statistics import Estimate, over_seeds
from hsa_jax.evaluation import pages, plots
from hsa_jax.evaluation.lengths import format_length

_WORDS = (
  "Every token of whole windows of held-out text is a target; a column is the"
  " mean over the positions from half its number on. Means over seeds of each"
  " seed's perplexity."
)

Lines = Sequence[Mapping[str, Any]]


def position_section(
  lines: Lines,
  cells: Sequence[str],
  *,
  title: str,
  folder: str | os.PathLike[str],
) -> list[pages.Block]:
  """A picture and a table; nothing if it was not measured.

  Args:
    lines: of all runs; those with `buckets` count.
    cells: to show, in order.
    title: of the section of the report.
    folder: where the picture goes.
  """
  found = {cell: _by_bucket(lines, cell) for cell in cells}
  found = {cell: buckets for cell, buckets in found.items() if buckets}
  if not found:
    return []
  lasts = sorted({last for buckets in found.values() for last in buckets})
  file = f"perplexity_by_position_{title.replace(' ', '_')}.png"
  bands = [_band(cell, buckets) for cell, buckets in found.items()]
  plots.perplexity_by_position(bands, path=os.path.join(folder, file))
  rows = [
    [
      pages.Cell(cell),
      *(
        value_cell(buckets[last]) if last in buckets else pages.Cell("")
        for last in lasts
      ),
    ]
    for cell, buckets in found.items()
  ]
  header = ("cell", *(format_length(last + 1) for last in lasts))
  return [
    pages.Heading(3, "Perplexity by position"),
    pages.Paragraph(_WORDS),
    pages.Picture(file, f"{title}: perplexity by position, 95% over seeds"),
    pages.Table(header, rows),
  ]


def _by_bucket(lines: Lines, cell: str) -> dict[int, Estimate]:
  """Perplexity by the last position of each bucket, over the seeds."""
  values: dict[int, list[float]] = {}
  for line in lines:
    if line["cell"] == cell:
      for bucket in line.get("buckets", ()):
        values.setdefault(bucket["last"], []).append(bucket["perplexity"])
  return {last: over_seeds(found) for last, found in sorted(values.items())}


def _band(cell: str, buckets: Mapping[int, Estimate]) -> plots.Band:
  """What a logarithmic axis can show of the estimates."""
  means = [one.mean for one in buckets.values()]
  sides = [one.interval or (one.mean, one.mean) for one in buckets.values()]
  return plots.Band(
    cell,
    list(buckets),
    means,
    # A t interval of few seeds may reach below what a perplexity can be.
    [max(low, 1.0) for low, _ in sides],
    [high for _, high in sides],
  )
