"""Where full layers look, beside one another: a table of a grid's report."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hsa_jax.evaluation import pages
from hsa_jax.evaluation.lengths import format_length

COLUMNS = ("begin", "needle", "context", "question", "entropy_nats")
_WORDS = (
  "Attention of the tokens that have to say the answer, shared out over the"
  " first ten tokens, the needle, the rest of the haystack, and question and"
  " answer: the full layer with the most on the needle, means over samples and"
  " seeds."
)

Lines = Sequence[Mapping[str, Any]]


def attention_table(lines: Lines, cells: Sequence[str]) -> list[pages.Block]:
  """A row per cell, haystack and length; nothing if it was not measured.

  Args:
    lines: of all runs; those with `attention` count.
    cells: to show, in order.
  """
  mine = [line for line in lines if line.get("attention")]
  rows = [row for cell in cells for row in _rows(mine, cell)]
  if not rows:
    return []
  header = ("cell", "haystack", "context", "layer", "seeds", *COLUMNS[:-1])
  return [
    pages.Heading(3, "Effective attention"),
    pages.Paragraph(_WORDS),
    pages.Table((*header, "entropy (nats)"), rows),
  ]


def _rows(lines: Lines, cell: str) -> Iterator[list[pages.Cell]]:
  groups: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
  for line in lines:
    if line["cell"] == cell:
      key = (str(line["haystack"]), int(line["length"]))
      groups.setdefault(key, []).append(line)
  for (haystack, length), found in sorted(groups.items()):
    layer, means = strongest(found)
    yield [
      pages.Cell(cell),
      pages.Cell(haystack),
      pages.Cell(format_length(length), length),
      pages.Cell(str(layer), layer),
      pages.Cell(str(len(found)), len(found)),
      *(pages.Cell(f"{means[name]:.3f}", means[name]) for name in COLUMNS),
    ]


def strongest(lines: Lines) -> tuple[int, dict[str, float]]:
  """The layer with the most attention on the needle, averaged over lines.

  Returns:
    Its depth, and its means by column.
  """
  layers: dict[int, list[Mapping[str, float]]] = {}
  for line in lines:
    for one in line["attention"]:
      layers.setdefault(one["layer"], []).append(one)
  means = {
    depth: {
      name: sum(row[name] for row in rows) / len(rows) for name in COLUMNS
    }
    for depth, rows in layers.items()
  }
  best = max(means, key=lambda depth: means[depth]["needle"])
  return best, means[best]
