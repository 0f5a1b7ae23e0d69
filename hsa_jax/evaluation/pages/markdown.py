"""Blocks as Markdown that is legible as plain text too."""

from collections.abc import Sequence

from hsa_jax.evaluation.pages.blocks import (
  Block,
  Facts,
  Heading,
  Paragraph,
  Picture,
  Table,
)


def render_markdown(blocks: Sequence[Block]) -> str:
  """The whole text, ending with a newline."""
  return "\n\n".join(map(_render, blocks)) + "\n"


def _render(block: Block) -> str:
  match block:
    case Heading(level, text):
      return f"{'#' * level} {text}"
    case Paragraph(text):
      return text
    case Facts(items):
      return "\n".join(f"- {name}: {value}" for name, value in items)
    case Picture(file, caption):
      return f"![{caption}]({file})"
    case Table():
      rows = [[cell.text for cell in row] for row in block.rows]
      return markdown_table(block.header, rows)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  """Columns are padded to the width of their longest cell."""
  header = [_escape(name) for name in header]
  rows = [[_escape(cell) for cell in row] for row in rows]
  widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

  def line(cells: Sequence[str]) -> str:
    padded = [c.ljust(w) for c, w in zip(cells, widths, strict=True)]
    return f"| {' | '.join(padded)} |"

  rule = f"|{'|'.join('-' * (w + 2) for w in widths)}|"
  return "\n".join([line(header), rule, *map(line, rows)])


def _escape(text: str) -> str:
  return text.replace("|", "\\|").replace("\n", " ")
