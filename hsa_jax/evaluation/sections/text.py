"""Held-out text by position and by length; curves over a distance."""

import math
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from hsa_jax.evaluation import plots
from hsa_jax.evaluation.pages import (
  Block,
  Cell,
  Heading,
  Paragraph,
  Picture,
  Table,
)
from hsa_jax.evaluation.pages.blocks import length_cell, number_cell
from hsa_jax.evaluation.runs import (
  Kind,
  Run,
  Variant,
  rows_of,
  samples_of,
  variants,
)
from hsa_jax.evaluation.scores import bootstrap_ratio
from hsa_jax.evaluation.sections.names import variant_picture

_PROTOCOLS = (
  "`by_position`: whole windows, every token a target, streamed beyond 4K."
  " `last_N`: the same N last tokens behind each context, streamed, with the"
  " upper decoder on the exact suffix. Intervals: bootstrap over samples."
)
_MOST_POINTS = 12  # lines of a table of a curve


def text_sections(runs: Sequence[Run], folder: pathlib.Path) -> list[Block]:
  """Perplexity and bits per byte; pictures go to `folder`."""
  found = variants(runs, Kind.TEXT)
  if not found:
    return []
  blocks: list[Block] = [Heading(2, "Held-out text"), Paragraph(_PROTOCOLS)]
  if len({run.info.tokenizer for run in runs}) > 1:
    blocks.append(
      Paragraph("The tokenizers differ: only bits per byte can be compared.")
    )
  if len(runs) == 1:
    blocks.append(_detail_table(runs[0], found))
  else:
    blocks += [
      Paragraph("Bits per byte:"),
      _comparison_table(runs, found),
    ]
  blocks += _by_position(runs, found, folder)
  blocks += _by_length(runs, found, folder)
  if len(runs) == 1:
    blocks += _bucket_tables(runs[0], found)
  return blocks


def position_band(run: Run, row: dict, label: str) -> plots.Band:
  """Perplexity per bucket with a bootstrap band over the documents.

  Without prediction lines the band has no width.
  """
  buckets = row["buckets"]
  y = [bucket["perplexity"] for bucket in buckets]
  low, high = list(y), list(y)
  documents = [s["buckets"] for s in samples_of(run, [row]) if s.get("buckets")]
  for i in range(len(buckets) if documents else 0):
    interval = bootstrap_ratio(
      np.array([document[i]["nats"] for document in documents]),
      np.array([document[i]["num_targets"] for document in documents]),
    )
    low[i], high[i] = map(math.exp, interval)
  return plots.Band(label, [b["last"] for b in buckets], y, low, high)


def curve_sections(runs: Sequence[Run], folder: pathlib.Path) -> list[Block]:
  """Suites whose result is a curve, such as effective remembrance."""
  blocks: list[Block] = []
  for variant in variants(runs, Kind.CURVE):
    bands = [
      curve_band(row, f"{run.name}, {row['length']:,} tokens")
      for run in runs
      for row in rows_of(run, variant)
      if row.get("curve")
    ]
    if not bands:
      continue
    image = variant_picture("curve", variant)
    first = next(r for run in runs for r in rows_of(run, variant))
    label = str(first.get("metric", "score")).replace("_", " ")
    plots.remembrance(bands, label=label, path=folder / image)
    blocks += [
      Heading(2, f"Suite {variant.suite}"),
      Paragraph(f"Protocol: `{variant.protocol}`."),
      Picture(image, f"{variant.title}: {label}, 95% band"),
      _curve_table(bands),
    ]
  return blocks


def curve_band(row: dict, label: str) -> plots.Band:
  """The curve of a result line: `{kept, mean, ci_low, ci_high}` per point.

  `kept` is the number of tokens at the end of the context that are left.
  """
  points = sorted(_point(p) for p in row["curve"] if p["kept"] > 0)
  return plots.Band(label, *(list(v) for v in zip(*points, strict=True)))


def _point(point: dict[str, Any]) -> tuple[float, float, float, float]:
  mean = point["mean"]
  low, high = point.get("ci_low", mean), point.get("ci_high", mean)
  return point["kept"], mean, low, high


def _curve_table(bands: Sequence[plots.Band]) -> Table:
  positions = sorted({x for band in bands for x in band.x})
  step = -(-len(positions) // _MOST_POINTS)
  rows = []
  for x in positions[::-1][::step][::-1]:
    cells = [Cell(f"{x:,.0f}", x)]
    for band in bands:
      cells.append(_band_cell(band, x))
    rows.append(cells)
  return Table(("tokens kept", *(band.label for band in bands)), rows)


def _band_cell(band: plots.Band, x: float) -> Cell:
  if x not in band.x:
    return Cell("")
  i = list(band.x).index(x)
  text = f"{band.y[i]:.4f} [{band.low[i]:.4f}, {band.high[i]:.4f}]"
  return Cell(text, band.y[i])


def _by_position(
  runs: Sequence[Run], found: Sequence[Variant], folder: pathlib.Path
) -> list[Block]:
  """The longest windows of each run."""
  bands, name = [], None
  for run in runs:
    rows = [r for v in found for r in rows_of(run, v) if r.get("buckets")]
    if rows:
      row = max(rows, key=lambda row: row["length"])
      name = name or next(v for v in found if row in rows_of(run, v))
      bands.append(position_band(run, row, run.name))
  if name is None:
    return []
  image = variant_picture("by_position", name)
  plots.perplexity_by_position(bands, path=folder / image)
  return [Picture(image, "Perplexity by position, log2 buckets, 95% bands")]


def _by_length(
  runs: Sequence[Run], found: Sequence[Variant], folder: pathlib.Path
) -> list[Block]:
  bands, names = [], []
  for variant in found:
    for run in runs:
      rows = [r for r in rows_of(run, variant) if not r.get("buckets")]
      if len(rows) > 1:
        names.append(variant)
        bands.append(_length_band(run, variant, rows))
  if not bands:
    return []
  image = variant_picture("by_length", names[0])
  plots.perplexity_by_length(bands, path=folder / image)
  return [Picture(image, "Perplexity by context length")]


def _length_band(
  run: Run, variant: Variant, rows: Sequence[dict]
) -> plots.Band:
  y, low, high = (
    [math.exp(row[name]) for row in rows]
    for name in ("score", "ci_low", "ci_high")
  )
  label = f"{run.name}, {variant.task}"
  return plots.Band(label, [row["length"] for row in rows], y, low, high)


def _detail_table(run: Run, found: Sequence[Variant]) -> Table:
  header = (
    "protocol",
    "context",
    "targets",
    "nats/token [95%]",
    "perplexity",
    "bits/byte [95%]",
  )
  rows = []
  for row in (row for variant in found for row in rows_of(run, variant)):
    nats = f"{row['score']:.4f} [{row['ci_low']:.4f}, {row['ci_high']:.4f}]"
    rows.append(
      [
        Cell(row["task"]),
        length_cell(row["length"]),
        number_cell(row["num_targets"], ",d"),
        Cell(nats, row["score"]),
        number_cell(row["perplexity"], ".3f"),
        _bits(row),
      ]
    )
  return Table(header, rows)


def _comparison_table(runs: Sequence[Run], found: Sequence[Variant]) -> Table:
  """Bits per byte: protocols down, runs across."""
  rows = []
  for variant in found:
    by_run = [{r["length"]: r for r in rows_of(run, variant)} for run in runs]
    for length in sorted(set().union(*by_run)):
      cells = [
        _bits(lines[length]) if length in lines else Cell("")
        for lines in by_run
      ]
      rows.append([Cell(variant.task), length_cell(length), *cells])
  return Table(("protocol", "context", *(run.name for run in runs)), rows)


def _bucket_tables(run: Run, found: Sequence[Variant]) -> list[Block]:
  blocks: list[Block] = []
  for row in (row for variant in found for row in rows_of(run, variant)):
    if row.get("buckets"):
      text = f"By position in windows of {row['length']:,} tokens:"
      blocks += [Paragraph(text), _bucket_table(row["buckets"])]
  return blocks


def _bucket_table(buckets: Sequence[dict]) -> Table:
  rows = [
    [
      Cell(f"{b['first']}-{b['last']}", b["first"]),
      number_cell(b["num_targets"], ",d"),
      number_cell(b["nats_per_token"], ".4f"),
      number_cell(b["perplexity"], ".3f"),
    ]
    for b in buckets
  ]
  return Table(("positions", "targets", "nats/token", "perplexity"), rows)


def _bits(row: dict) -> Cell:
  value = row["bits_per_byte"]
  low, high = row["bits_per_byte_low"], row["bits_per_byte_high"]
  return Cell(f"{value:.4f} [{low:.4f}, {high:.4f}]", value)
