"""Blocks as one HTML file: images inside, no network, light and dark.

A content security policy in the page itself forbids every request, so that the
file shows the same in ten years, and on a machine without a network.
"""

import base64
import html
import pathlib
from collections.abc import Sequence

from hsa_jax.evaluation.pages.blocks import (
  Block,
  Cell,
  Facts,
  Heading,
  Paragraph,
  Picture,
  Table,
)
from hsa_jax.evaluation.pages.page_parts import SCRIPT, STYLE

_POLICY = (
  "default-src 'none'; img-src data:; style-src 'unsafe-inline';"
  " script-src 'unsafe-inline'"
)

_SCALE = 0.72  # pixels of the page per pixel of a picture: sharp when zoomed


def render_page(blocks: Sequence[Block], folder: pathlib.Path) -> str:
  """The text of the page.

  Args:
    blocks: the first heading of level 1 is the title.
    folder: where the pictures lie; they are embedded.
  """
  title = next((b.text for b in blocks if isinstance(b, Heading)), "Report")
  anchors = _anchors(blocks)
  body = "\n".join(
    _render(block, anchors.get(i, ""), folder) for i, block in enumerate(blocks)
  )
  return (
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
    f"<body>\n{_contents(blocks, anchors)}\n<main>\n{body}\n</main>\n"
    f"<script>{SCRIPT}</script>\n</body>\n</html>\n"
  )


def _anchors(blocks: Sequence[Block]) -> dict[int, str]:
  """Index of each heading -> its name in links."""
  places = [i for i, block in enumerate(blocks) if isinstance(block, Heading)]
  return {place: f"s{number}" for number, place in enumerate(places)}


def _contents(blocks: Sequence[Block], anchors: dict[int, str]) -> str:
  links = []
  for i, anchor in anchors.items():
    heading = blocks[i]
    if isinstance(heading, Heading) and heading.level in (2, 3):
      links.append(
        f'<a class="l{heading.level}" href="#{anchor}">'
        f"{html.escape(heading.text)}</a>"
      )
  return f'<nav aria-label="Contents">{"".join(links)}</nav>'


def _render(block: Block, anchor: str, folder: pathlib.Path) -> str:
  match block:
    case Heading(level, text):
      return f'<h{level} id="{anchor}">{html.escape(text)}</h{level}>'
    case Paragraph(text):
      return f"<p>{_inline(text)}</p>"
    case Facts(items):
      pairs = (
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>"
        for name, value in items
      )
      return f"<dl>{''.join(pairs)}</dl>"
    case Picture(file, caption):
      return _picture(folder / file, caption)
    case Table():
      return _table(block)


def _table(table: Table) -> str:
  head = "".join(
    '<th scope="col" aria-sort="none"><button type="button">'
    f"{html.escape(name)}</button></th>"
    for name in table.header
  )
  rows = (f"<tr>{''.join(map(_cell, row))}</tr>" for row in table.rows)
  return (
    f'<div class="table"><table><thead><tr>{head}</tr></thead>'
    f"<tbody>{''.join(rows)}</tbody></table></div>"
  )


def _cell(cell: Cell) -> str:
  attributes = ""
  if cell.value is not None:
    attributes += f' data-value="{cell.value!r}"'
  if cell.shade is not None:
    share = min(max(cell.shade, 0.0), 1.0)
    attributes += f' class="score" style="--share:{share:.3f}"'
  return f"<td{attributes}>{html.escape(cell.text)}</td>"


def _picture(path: pathlib.Path, caption: str) -> str:
  image, text = path.read_bytes(), html.escape(caption)
  data = base64.b64encode(image).decode("ascii")
  # A PNG file says its width in bytes 16 to 19.
  width = round(int.from_bytes(image[16:20], "big") * _SCALE)
  return (
    f'<figure><img alt="{text}" width="{width}"'
    f' src="data:image/png;base64,{data}">'
    f"<figcaption>{text}</figcaption></figure>"
  )


def _inline(text: str) -> str:
  """Words between backquotes are set as code; there is no other markup."""
  parts = html.escape(text).split("`")
  return "".join(
    f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts)
  )
