"""Suites whose samples are scored in [0, 1], whatever they are called."""

import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

from hsa_jax.evaluation import plots
from hsa_jax.evaluation.pages import (
  Block,
  Cell,
  Heading,
  Paragraph,
  Picture,
  Table,
)
from hsa_jax.evaluation.pages.blocks import (
  bytes_cell,
  interval_text,
  length_cell,
  number_cell,
  score_cell,
)
from hsa_jax.evaluation.runs import (
  Kind,
  Run,
  Variant,
  by_suite,
  extra_fields,
  rows_of,
  samples_of,
  value_of,
  variants,
)
from hsa_jax.evaluation.sections.diagnostics import diagnostics
from hsa_jax.evaluation.sections.names import picture_name, variant_picture
from hsa_jax.evaluation.sections.summary import (
  HEADLINES,
  headline_text,
  summary_table,
)


class Column(NamedTuple):
  """A field of result lines that tables know how to show."""

  field: str
  name: str
  show: Callable[[float | None], Cell]


def _decimal(value: float | None) -> Cell:
  return number_cell(value, ".3f")


def _percent(value: float | None) -> Cell:
  return Cell("") if value is None else Cell(f"{100 * value:.3g}%", value)


COLUMNS = (
  Column("token_accuracy", "token accuracy", _decimal),
  Column("recall_at_k", "recall@K", _decimal),
  Column("p_correct_given_recalled", "P(correct | recalled)", _decimal),
  Column("unique_fraction", "unique text", _percent),
  Column("tokens_per_s", "tokens/s", lambda v: number_cell(v, ",.0f")),
  Column("peak_rss_bytes", "peak RSS", bytes_cell),
)
# Too much for a table that is read; in results.csv they are.
_UNSEEN = ("suffix_s_per_sample", "device_bytes", "host_bytes", "disk_bytes")
# Shares of answer tokens: their parts are in the prediction lines.
_SHARES = {
  "token_accuracy": ("correct_tokens", "answer_tokens"),
  "recall_at_k": ("recalled_tokens", "sourced_tokens"),
  "p_correct_given_recalled": ("recalled_correct_tokens", "recalled_tokens"),
}


def score_sections(runs: Sequence[Run], folder: pathlib.Path) -> list[Block]:
  """All suites with scores; pictures go to `folder`."""
  blocks: list[Block] = []
  for suite, found in by_suite(variants(runs, Kind.SCORE)).items():
    blocks += _suite(runs, suite, found, folder)
  for suite, found in by_suite(variants(runs, Kind.OTHER)).items():
    blocks.append(Heading(2, f"{suite}: other figures"))
    for variant in found:
      blocks += [Heading(3, variant.title), *_tables(runs, variant)]
  return blocks


def _suite(
  runs: Sequence[Run],
  suite: str,
  found: Sequence[Variant],
  folder: pathlib.Path,
) -> list[Block]:
  protocols = list(dict.fromkeys(v.protocol for v in found))
  names = ", ".join(f"`{name}`" for name in protocols)
  plural = "s" if len(protocols) > 1 else ""
  blocks: list[Block] = [
    Heading(2, f"Suite {suite}"),
    Paragraph(f"Protocol{plural}: {names}."),
  ]
  blocks += _accuracy(runs, suite, found, folder)
  if len(found) > 1:
    blocks.append(summary_table(runs, found))
    blocks += [
      Paragraph(headline_text(runs, found, protocol))
      for protocol in protocols
      if protocol in HEADLINES
    ]
  for variant in found:
    blocks += [Heading(3, _title(variant, found)), *_tables(runs, variant)]
    blocks += _heat_map(runs, variant, folder)
    blocks += diagnostics(runs, variant, folder)
  return blocks


def _title(variant: Variant, found: Sequence[Variant]) -> str:
  """With the protocol where two protocols measure the same task."""
  same = [v for v in found if v.title == variant.title]
  part = f" ({variant.protocol})" if len(same) > 1 else ""
  return variant.title + part


def _accuracy(
  runs: Sequence[Run],
  suite: str,
  found: Sequence[Variant],
  folder: pathlib.Path,
) -> list[Block]:
  """Curves, unless there is one length only."""
  panels = [
    plots.Panel(_title(variant, found), [_curve(run, variant) for run in runs])
    for variant in found
  ]
  lengths = {p.length for panel in panels for c in panel.curves for p in c[1]}
  if len(lengths) < 2:
    return []
  image = picture_name("accuracy", suite)
  plots.accuracy_by_length(panels, label="score", path=folder / image)
  caption = f"{suite}: score by context length; dotted: longest row trained at"
  return [Picture(image, caption)]


def _curve(run: Run, variant: Variant) -> plots.Curve:
  points = [
    plots.Point(row["length"], row["score"], *_interval(row))
    for row in rows_of(run, variant)
  ]
  return plots.Curve(
    run.name, points, run.info.train_length, run.info.receptive_field
  )


def _interval(row: dict) -> tuple[float, float]:
  """Of the score; without width where the line has none."""
  low, high = row.get("ci_low"), row.get("ci_high")
  score = row["score"]
  return (score, score) if low is None or high is None else (low, high)


def _tables(runs: Sequence[Run], variant: Variant) -> list[Block]:
  if len(runs) == 1:
    return [detail_table(runs[0], variant)]
  return [comparison_table(runs, variant)]


def detail_table(run: Run, variant: Variant) -> Table:
  """One run, one variant: a line per length, whatever fields there are."""
  rows = rows_of(run, variant)
  extras = {name: None for row in rows for name in extra_fields(row)}
  known = [column for column in COLUMNS if column.field in extras]
  fields = {column.field for column in COLUMNS} | {*_UNSEEN}
  others = [n for n in extras if n not in fields and "_ci_" not in n]
  columns = [*known, *map(_generic, others)]
  metric = str(rows[0].get("metric", "score")).replace("_", " ")
  header = ("length", f"{metric} [95%]", *(c.name for c in columns))
  lines = []
  for row in rows:
    shown = [_show(run, row, column) for column in columns]
    lines.append([length_cell(row["length"]), score_cell(row), *shown])
  return Table(header, lines)


def comparison_table(runs: Sequence[Run], variant: Variant) -> Table:
  """One variant: lengths down, runs across."""
  present = [run for run in runs if rows_of(run, variant)]
  by_run = [{r["length"]: r for r in rows_of(run, variant)} for run in present]
  lengths = sorted(set().union(*by_run))
  rows = [
    [
      length_cell(length),
      *(
        score_cell(rows[length]) if length in rows else Cell("")
        for rows in by_run
      ),
    ]
    for length in lengths
  ]
  return Table(("length", *(run.name for run in present)), rows)


def _generic(field: str) -> Column:
  """A column for a field that nobody told of."""
  if field.endswith("_bytes"):
    return Column(field, field.replace("_", " "), bytes_cell)
  name = field.replace("_", " ")
  return Column(field, name, lambda value: number_cell(value, ".4g"))


def _show(run: Run, row: dict, column: Column) -> Cell:
  """The number; shares of answer tokens with their counts, where known."""
  value = row.get(column.field)
  cell = column.show(value)
  stem = column.field.removesuffix("_score")
  if f"{stem}_ci_low" in row:  # a second metric beside the score
    interval = interval_text(row[f"{stem}_ci_low"], row[f"{stem}_ci_high"])
    return cell._replace(text=cell.text + interval)
  if value is None or column.field not in _SHARES:
    return cell
  part, whole = (_total(run, row, name) for name in _SHARES[column.field])
  return cell._replace(text=f"{part}/{whole} {cell.text}") if whole else cell


def _total(run: Run, row: dict, name: str) -> int:
  """Sum over the samples; an answer token without word of it has a source."""
  samples = samples_of(run, [row])
  if name == "sourced_tokens":
    counts = [s.get(name, s.get("answer_tokens")) for s in samples]
  else:
    counts = [s.get(name) for s in samples]
  return sum(count or 0 for count in counts)


def _heat_map(
  runs: Sequence[Run], variant: Variant, folder: pathlib.Path
) -> list[Block]:
  shown = [
    (run.name, samples)
    for run in runs
    if (samples := depth_samples(run, variant))
  ]
  if not shown:
    return []
  image = variant_picture("heat_map", variant)
  names = f"{shown[0][0]}: " if len(runs) == 1 else ""
  plots.heat_maps(shown, title=names + variant.title, path=folder / image)
  return [Picture(image, "Score by depth and length")]


def depth_samples(run: Run, variant: Variant) -> list[plots.Sample]:
  """The samples behind the result lines that have a depth, and no others."""
  found = []
  for row in samples_of(run, rows_of(run, variant)):
    value, depth = value_of(row), row.get("depth")
    if value is not None and depth is not None:
      found.append(plots.Sample(row["length"], float(depth), value))
  # Where every sample has one depth, depth is not what is looked at.
  varied = len(found) < 2 or len({sample.depth for sample in found}) > 1
  return found if varied else []
