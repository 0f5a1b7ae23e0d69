"""The report of a grid, made at any time from what is finished.

report.md, report.html   tables and pictures, a section per subset
summary.csv              a row per cell, measurement and length
records.jsonl            what all of it is made from, a line per run and
measurement; a report can be remade from it alone. What it has of other
cells and seeds than those asked for stays
"""

import csv
import io
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from hsa_jax.ablation import pictures
from hsa_jax.ablation.attention import attention_table
from hsa_jax.ablation.cells import difference_cell, value_cell
from hsa_jax.ablation.glance import glance, replace_block
from hsa_jax.ablation.grid import BASE, Cell, Grid, GridError, select
from hsa_jax.ablation.positions import position_section
from hsa_jax.ablation.records import Table, collect, write_records
from hsa_jax.ablation.resolve import Resolved, Run
from hsa_jax.ablation.summary import (
  Point,
  at,
  cells_of,
  lengths_of,
  summarise,
)
from hsa_jax.evaluation import pages
from hsa_jax.evaluation.lengths import format_length
from hsa_jax.evaluation.report import write_file, write_pages

NOTES = (
  "A value is the mean over training seeds, each seed counting once, with its"
  " 95% interval over seeds (Student's t). Where all seeds agree, or there is"
  " one only, the interval is Wilson's over all samples, and says nothing of"
  " other seeds: such cells carry the mark ~. Differences are cell minus base,"
  " paired by seed: the same rows of training, the same questions. A star says"
  " that the interval leaves out zero; intervals are not corrected for how many"
  " are looked at."
)


class Section(NamedTuple):
  """A part of the report: some cells beside the base.

  Attributes:
    title: name of the subset.
    points: of its cells.
  """

  title: str
  points: list[Point]


def write_report(
  grid: Grid,
  found: Sequence[Resolved],
  runs: Sequence[Run],
  workdir: str | os.PathLike[str],
  out: str | os.PathLike[str],
  *,
  subset: str = "",
  stored_in: str | os.PathLike[str] = "",
  doc: str = "",
  name: str = "ablation",
) -> pathlib.Path:
  """Makes the report; returns the path of the Markdown file.

  Args:
    grid: the grid.
    found: its cells that are wanted.
    runs: of these.
    workdir: of the grid.
    out: where the report goes; made if it is not there.
    subset: the only section, if one is named.
    stored_in: folder whose `records.jsonl` stands in for runs that are not in
      the workdir; by default `out`.
    doc: Markdown file that gets the tables at a glance between the marks
      `<!-- NAME SIZE -->` and `<!-- end -->`.
    name: of the grid's file, in titles and marks.

  Raises:
    GridError: if nothing is finished.
  """
  lines = collect(workdir, runs, stored_in or out)
  if not lines:
    raise GridError([f"--workdir={workdir}: no run of this grid is finished"])
  folder = pathlib.Path(out)
  folder.mkdir(parents=True, exist_ok=True)
  write_records(folder, lines, runs)
  points = summarise(lines)
  write_file(folder / "summary.csv", summary_csv(points))
  title = name.replace("_", " ").capitalize()
  blocks: list[pages.Block] = [
    pages.Heading(1, f"{title}, size {grid.size}"),
    pages.Paragraph(NOTES),
    *_cells(grid, found, lines),
  ]
  train_length = max(s.seq_len for s in grid.base.data.stages)
  sections = sections_of(grid, points, subset)
  for section in sections:
    blocks += _section(section, folder, train_length)
    cells = cells_of(section.points)
    blocks += attention_table(lines, cells)
    blocks += position_section(lines, cells, title=section.title, folder=folder)
  if doc:
    words = _for_doc(sections, doc, folder, train_length)
    replace_block(doc, f"{name} {grid.size}", words)
  return write_pages(folder, "report", blocks)


def _for_doc(
  sections: Sequence[Section],
  doc: str,
  folder: pathlib.Path,
  train_length: int,
) -> list[pages.Block]:
  """The tables at a glance, and where the rest is."""
  blocks: list[pages.Block] = []
  for section in sections:
    title = section.title.capitalize().replace("_", " ")
    blocks.append(pages.Paragraph(f"**{title}.**"))
    blocks += glance(section.points, train_length)
  link = os.path.relpath(folder / "report.md", pathlib.Path(doc).parent)
  text = f"Every length, the retrieval and the pictures: [report]({link})."
  return [*blocks, pages.Paragraph(text)]


def sections_of(
  grid: Grid, points: Sequence[Point], subset: str = ""
) -> list[Section]:
  """A section per subset of which something that no other has is finished."""
  there, shown = cells_of(points), [{BASE}]
  sections = []
  for name in [subset] if subset else grid.subsets:
    members = [cell.name for cell in select(grid, subset=name)]
    mine = [cell for cell in members if cell in there]
    if not any(cells.issuperset(mine) for cells in shown):
      shown.append(set(mine))
      sections.append(_of_cells(name, points, mine))
  known = {cell for cells in shown for cell in cells}
  rest = [cell for cell in there if cell not in known]
  if rest or not sections:
    sections.append(_of_cells("other cells", points, [BASE, *rest]))
  return sections


def _of_cells(
  title: str, points: Sequence[Point], cells: Sequence[str]
) -> Section:
  order = {cell: i for i, cell in enumerate(cells)}
  mine = [point for point in points if point.cell in order]
  return Section(title, sorted(mine, key=lambda p: order[p.cell]))


def _cells(
  grid: Grid, found: Sequence[Resolved], lines: Sequence[dict[str, Any]]
) -> list[pages.Block]:
  """What the cells are, and how many seeds of each are finished."""
  rows = []
  for one in found:
    mine = [line for line in lines if line["cell"] == one.cell.name]
    seconds = {line["seed"]: line["train_s"] for line in mine}
    if seconds:
      rows.append(_cell_row(one.cell, one.parameters, seconds))
  header = ("cell", "axis", "tests whether", "parameters", "seeds", "train s")
  blocks: list[pages.Block] = [pages.Table(header, rows)]
  if grid.undefined:
    texts = [f"`{one.name}`: {one.reason}" for one in grid.undefined]
    blocks.append(pages.Paragraph(f"Not defined: {'; '.join(texts)}."))
  return blocks


def _cell_row(
  cell: Cell, parameters: int, seconds: dict[int, float]
) -> list[pages.Cell]:
  mean = sum(seconds.values()) / len(seconds)
  return [
    pages.Cell(cell.name),
    pages.Cell(cell.axis),
    pages.Cell(cell.claim),
    pages.Cell(f"{parameters:,}", parameters),
    pages.Cell(str(len(seconds)), len(seconds)),
    pages.Cell(f"{mean:.0f}" if mean else "", mean),
  ]


def _section(
  section: Section, folder: pathlib.Path, train_length: int
) -> list[pages.Block]:
  """Pictures, then a table of values and one of differences per measurement."""
  tables = dict.fromkeys(point.table for point in section.points)
  groups = [
    (table, [p for p in section.points if p.table == table]) for table in tables
  ]
  scores = [(t, points) for t, points in groups if t.figure == "score"]
  texts = [(t, points) for t, points in groups if t.figure == "perplexity"]
  blocks: list[pages.Block] = [pages.Heading(2, section.title)]
  blocks += glance(section.points, train_length)
  blocks += _pictures(section.title, scores, texts, folder, train_length)
  for table, points in groups:
    blocks += [pages.Heading(3, table.title), _values(points)]
    blocks += _differences(points)
    if table.figure == "score":
      blocks += _retrieval(points)
  return blocks


def _pictures(
  title: str,
  scores: Sequence[tuple[Table, list[Point]]],
  texts: Sequence[tuple[Table, list[Point]]],
  folder: pathlib.Path,
  train_length: int,
) -> list[pages.Block]:
  name = title.replace(" ", "_")
  blocks: list[pages.Block] = []
  if scores:
    file = f"accuracy_{name}.png"
    pictures.accuracy(scores, train_length=train_length, path=folder / file)
    caption = f"{title}: score by context length; dotted: longest training row"
    blocks.append(pages.Picture(file, caption))
  recalled = [
    (t, points) for t, points in scores if any(p.recall for p in points)
  ]
  if recalled:
    file = f"retrieval_{name}.png"
    pictures.retrieval(recalled, path=folder / file)
    caption = f"{title}: what was found, and what was made of it"
    blocks.append(pages.Picture(file, caption))
  for table, points in texts:
    file = f"perplexity_{name}_{table.task}.png"
    pictures.perplexity(points, path=folder / file)
    blocks.append(pages.Picture(file, f"{title}: perplexity by context length"))
  return blocks


def _values(points: Sequence[Point]) -> pages.Table:
  lengths = lengths_of(points)
  rows = []
  for cell in cells_of(points):
    mine = [p for p in points if p.cell == cell]
    seeds = max(p.value.num_seeds for p in mine)
    row = [pages.Cell(cell), pages.Cell(str(seeds), seeds)]
    for length in lengths:
      point = at(mine, cell, length)
      row.append(value_cell(point.value) if point else pages.Cell(""))
    rows.append(row)
  names = [_length_name(points, length) for length in lengths]
  return pages.Table(("cell", "seeds", *names), rows)


def _length_name(points: Sequence[Point], length: int) -> str:
  """`4K (n=32)`: a length with the samples of each seed."""
  counts = sorted({p.samples for p in points if p.length == length})
  return f"{format_length(length)} (n={'/'.join(map(str, counts))})"


def _differences(points: Sequence[Point]) -> list[pages.Block]:
  """Cell minus base, if there is anything to compare."""
  cells = list(dict.fromkeys(p.cell for p in points if p.difference))
  if not cells:
    return []
  lengths = lengths_of([p for p in points if p.difference])
  rows = [
    [
      pages.Cell(cell),
      *(
        difference_cell(point.difference if point else None)
        for point in (at(points, cell, length) for length in lengths)
      ),
    ]
    for cell in cells
  ]
  names = [format_length(length) for length in lengths]
  return [
    pages.Paragraph("Minus the base:"),
    pages.Table(("cell", *names), rows),
  ]


def _retrieval(points: Sequence[Point]) -> list[pages.Block]:
  """recall@K and P(correct | recalled), where there is a memory."""
  cells = [
    cell
    for cell in cells_of(points)
    if any(p.recall is not None for p in points if p.cell == cell)
  ]
  if not cells:
    return []
  lengths = lengths_of(points)
  rows = []
  for cell in cells:
    found = [at(points, cell, length) for length in lengths]
    rows.append([pages.Cell(cell), *(_retrieval_cell(p) for p in found)])
  names = [format_length(length) for length in lengths]
  return [
    pages.Paragraph("recall@K / P(correct token | recalled):"),
    pages.Table(("cell", *names), rows),
  ]


def _retrieval_cell(point: Point | None) -> pages.Cell:
  if point is None or point.recall is None:
    return pages.Cell("")
  precision = "-" if point.precision is None else f"{point.precision:.2f}"
  return pages.Cell(f"{point.recall:.2f} / {precision}", point.recall)


def summary_csv(points: Sequence[Point]) -> str:
  """A row per point, all its figures."""
  header = (
    "cell,suite,task,haystack,figure,length,samples,seeds,mean,low,high,"
    "difference,difference_low,difference_high,recall_at_k,"
    "p_correct_given_recalled"
  )
  text = io.StringIO()
  writer = csv.writer(text, lineterminator="\n")
  writer.writerow(header.split(","))
  for p in points:
    gap = p.difference
    writer.writerow(
      [
        p.cell,
        *p.table,
        p.length,
        p.samples,
        p.value.num_seeds,
        p.value.mean,
        *(p.value.interval or ("", "")),
        "" if gap is None else gap.mean,
        *((gap.interval if gap else None) or ("", "")),
        p.recall,
        p.precision,
      ]
    )
  return text.getvalue()
