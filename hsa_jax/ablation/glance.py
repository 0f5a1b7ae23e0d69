"""A section of the report in a few tables, also for a page of the docs."""

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

FAR = 64  # times the longest row of training
TELLING = 0.1  # of the whole answers, in the best cell


def glance(points: Sequence[Point], train_length: int) -> list[pages.Block]:
  """A table per length: all measurements, cells down.

  The lengths are the training length, the first that is far beyond it, and the
  longest, as far as all cells have them. Scores of which no cell has a tenth of
  the answers whole are told by their answer tokens.

  Args:
    points: of a section.
    train_length: tokens of the longest row of training.
  """
  cells = cells_of(points)
  columns: dict[int, list[Column]] = {}
  for table in dict.fromkeys(point.table for point in points):
    mine = [point for point in points if point.table == table]
    if _telling(table, points):
      for length in _shown(mine, cells, train_length):
        columns.setdefault(length, []).append((table, mine))
  blocks: list[pages.Block] = []
  for length, found in sorted(columns.items()):
    times = length / train_length
    blocks.append(
      pages.Paragraph(
        f"At {format_length(length)} tokens, {times:g} times the longest row of"
        " training:"
      )
    )
    blocks.append(_table(cells, found, length))
  return blocks


Column = tuple[Table, list[Point]]


def _shown(
  points: Sequence[Point], cells: Sequence[str], train_length: int
) -> list[int]:
  """Near, far and farthest, of the lengths at which all cells were measured."""
  lengths = [
    n for n in lengths_of(points) if all(at(points, cell, n) for cell in cells)
  ]
  if not lengths:
    return []
  near = [n for n in lengths if n <= train_length][-1:] or lengths[:1]
  far = [n for n in lengths if n >= FAR * train_length][:1]
  return sorted({*near, *far, lengths[-1]})


def _telling(table: Table, points: Sequence[Point]) -> bool:
  """Whole answers where there are any, else their tokens; text always."""
  if table.figure == "perplexity":
    return True
  whole = table._replace(figure="score")
  found = [p.value.mean for p in points if p.table == whole]
  right = max(found, default=0.0) >= TELLING
  return right == (table.figure == "score")


def _table(
  cells: Sequence[str], columns: Sequence[Column], length: int
) -> pages.Table:
  header = ["cell", "seeds"]
  for table, _ in columns:
    header += [table.title, "minus the base"]
  return pages.Table(header, [_row(cell, columns, length) for cell in cells])


def _row(cell: str, columns: Sequence[Column], length: int) -> list[pages.Cell]:
  found = [at(points, cell, length) for _, points in columns]
  seeds = max(p.value.num_seeds for p in found if p)
  row = [pages.Cell(cell), pages.Cell(str(seeds), seeds)]
  for point in found:
    assert point is not None, "columns have a point of every cell"
    row += [value_cell(point.value), difference_cell(point.difference)]
  return row


def replace_block(
  path: str | os.PathLike[str], mark: str, blocks: Sequence[pages.Block]
) -> None:
  """Replaces what stands between two marks of a Markdown file.

      <!-- MARK -->  ...  <!-- end -->

  Args:
    path: of the file.
    mark: the first mark, as `ablation tiny`.
    blocks: what is to stand there.

  Raises:
    GridError: the file has no such marks.
  """
  file = pathlib.Path(path)
  text = file.read_text(encoding="utf-8") if file.is_file() else ""
  start = f"<!-- {mark} -->"
  pattern = re.compile(re.escape(start) + ".*?<!-- end -->", re.DOTALL)
  if not pattern.search(text):
    raise GridError([f"--doc={path}: needs the lines {start} and <!-- end -->"])
  body = f"{start}\n\n{pages.render_markdown(blocks)}\n<!-- end -->"
  write_file(file, pattern.sub(lambda _: body, text, count=1))
