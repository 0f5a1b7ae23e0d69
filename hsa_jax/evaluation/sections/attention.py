"""Where full layers look: mass by region and entropy, by layer and length."""

import pathlib
from collections.abc import Iterator, Sequence

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
from hsa_jax.evaluation.runs import Kind, Run, Variant, rows_of, variants
from hsa_jax.evaluation.sections.names import variant_picture

_WORDS = (
  "Share of the attention of the tokens that have to say the answer: on the"
  " first ten tokens, on the needle, on the rest of the haystack, on question"
  " and answer; and its entropy. Means over heads, answer tokens and samples."
)
_SHARES = ("begin", "needle", "context", "question")


def attention_sections(
  runs: Sequence[Run], folder: pathlib.Path
) -> list[Block]:
  """Tables and pictures of `effective_attention`; pictures go to `folder`."""
  found = variants(runs, Kind.ATTENTION)
  if not found:
    return []
  blocks: list[Block] = [Heading(2, "Effective attention"), Paragraph(_WORDS)]
  for variant in found:
    image = variant_picture("attention", variant)
    plots.attention_by_length(_lines(runs, variant), path=folder / image)
    blocks += [
      Picture(image, f"{variant.title}: mass on the needle, and entropy"),
      _table(runs, variant),
    ]
  return blocks


def _lines(runs: Sequence[Run], variant: Variant) -> list[plots.LayerLine]:
  lines = []
  for run in runs:
    rows = rows_of(run, variant)
    for i, first in enumerate(rows[0]["attention"] if rows else ()):
      own = [row["attention"][i] for row in rows]
      name = f"layer {first['layer']}"
      lines.append(
        plots.LayerLine(
          name if len(runs) == 1 else f"{run.name}, {name}",
          [row["length"] for row in rows],
          [line["needle"] for line in own],
          [line["needle_low"] for line in own],
          [line["needle_high"] for line in own],
          [line["entropy_nats"] for line in own],
        )
      )
  return lines


def _table(runs: Sequence[Run], variant: Variant) -> Table:
  header = ("run", "context", "layer", *_SHARES, "entropy (nats)")
  return Table(header, [list(cells) for cells in _rows(runs, variant)])


def _rows(runs: Sequence[Run], variant: Variant) -> Iterator[tuple[Cell, ...]]:
  for run in runs:
    for row in rows_of(run, variant):
      for line in row["attention"]:
        yield (
          Cell(run.name),
          length_cell(row["length"]),
          number_cell(line["layer"], "d"),
          *(number_cell(line[name], ".4f") for name in _SHARES),
          number_cell(line["entropy_nats"], ".2f"),
        )
