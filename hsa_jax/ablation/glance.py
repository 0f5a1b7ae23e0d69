"""A whole section of the report in one table, also for a page of the docs."""

import os
import pathlib
import re
from collections.abc import Sequence

from hsa_jax.ablation.cells import difference_cell, value_cell
from hsa_jax.ablation.grid import GridError
from hsa_jax.ablation.records import Table
from hsa_jax.ablation.summary import Point, at, cells_of, lengths_of
from hsa_jax.evaluation import pages
from hsa_jax.evaluation.lengths import format_length
from hsa_jax.evaluation.report import write_file


def glance(points: Sequence[Point]) -> pages.Table:
  """Every measurement at the longest length that all cells have, cells down.

  Scores of which no cell has anything right are told by their answer tokens.
  """
  cells = cells_of(points)
  columns = [
    column
    for table in dict.fromkeys(point.table for point in points)
    if (column := _column(table, points, cells)) is not None
  ]
  header = ["cell", "seeds"]
  for table, length, _ in columns:
    header += [f"{table.title} {format_length(length)}", "minus the base"]
  return pages.Table(header, [_row(cell, columns) for cell in cells])


Column = tuple[Table, int, list[Point]]


def _column(
  table: Table, points: Sequence[Point], cells: Sequence[str]
) -> Column | None:
  mine = [point for point in points if point.table == table]
  lengths = [
    n for n in lengths_of(mine) if all(at(mine, cell, n) for cell in cells)
  ]
  if not lengths or not _telling(table, points):
    return None
  return table, lengths[-1], mine


def _telling(table: Table, points: Sequence[Point]) -> bool:
  """Whole answers where there are any, else their tokens; text always."""
  if table.figure == "perplexity":
    return True
  whole = table._replace(figure="score")
  right = any(p.value.mean > 0 for p in points if p.table == whole)
  return right == (table.figure == "score")


def _row(cell: str, columns: Sequence[Column]) -> list[pages.Cell]:
  found = [at(points, cell, length) for _, length, points in columns]
  seeds = max(p.value.num_seeds for p in found if p) if found else 0
  row = [pages.Cell(cell), pages.Cell(str(seeds), seeds)]
  for point in found:
    assert point is not None, "columns have a point of every cell"
    row += [value_cell(point.value), difference_cell(point.difference)]
  return row


def replace_block(
  path: str | os.PathLike[str], name: str, blocks: Sequence[pages.Block]
) -> None:
  """Replaces what stands between two marks of a Markdown file.

      <!-- ablation NAME -->  ...  <!-- end -->

  Args:
    path: of the file.
    name: in the first mark.
    blocks: what is to stand there.

  Raises:
    GridError: the file has no such marks.
  """
  file = pathlib.Path(path)
  text = file.read_text(encoding="utf-8") if file.is_file() else ""
  start = f"<!-- ablation {name} -->"
  pattern = re.compile(re.escape(start) + ".*?<!-- end -->", re.DOTALL)
  if not pattern.search(text):
    raise GridError([f"--doc={path}: needs the lines {start} and <!-- end -->"])
  body = f"{start}\n\n{pages.render_markdown(blocks)}\n<!-- end -->"
  write_file(file, pattern.sub(lambda _: body, text, count=1))
