"""Retrieval, where it was measured: recall, ranks, distances, reads."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from hsa_jax.evaluation import plots
from hsa_jax.evaluation.lengths import format_length
from hsa_jax.evaluation.pages import Block, Picture
from hsa_jax.evaluation.runs import Run, Variant, rows_of, samples_of
from hsa_jax.evaluation.sections.names import variant_picture

_MOST_LENGTHS = 5  # lines in one histogram


def diagnostics(
  runs: Sequence[Run], variant: Variant, folder: pathlib.Path
) -> list[Block]:
  """Pictures of what the lines hold; nothing where they hold nothing."""
  return [
    *_recall(runs, variant, folder),
    *_distances(runs, variant, folder),
    *_reads(runs, variant, folder),
  ]


def find_reads(run: Run, variant: Variant) -> tuple[dict, plots.Reads] | None:
  """The first sample of the longest context that says what it read."""
  for row in reversed(rows_of(run, variant)):
    for sample in samples_of(run, [row]):
      if sample.get("reads"):
        return sample, parse_reads(sample["reads"])
  return None


def parse_reads(reads: dict[str, Any]) -> plots.Reads:
  """The field `reads` of a prediction line.

  Slots that hold no chunk are left out there, so rows are filled up with -1.
  Weights that were not kept count as equal ones.
  """
  tokens = [str(token) for token in reads["answer_tokens"]]
  groups = reads["groups"]
  return plots.Reads(
    tokens,
    np.asarray(reads.get("gold_chunks") or [-1] * len(tokens), int),
    [_fill(group["chunks"], -1).astype(int) for group in groups],
    [_weights(group) for group in groups],
    int(reads["num_chunks"]),
    [_panel_name(i, group, groups) for i, group in enumerate(groups)],
  )


def _fill(rows: Sequence[Sequence[float]], value: float) -> np.ndarray:
  """Rows of unequal length as a rectangle."""
  width = max(map(len, rows), default=0)
  filled = [[*row, *[value] * (width - len(row))] for row in rows]
  return np.array(filled, float).reshape(len(rows), width)


def _weights(group: dict[str, Any]) -> np.ndarray:
  weights = group.get("weights")
  if weights is None:
    weights = [[1 / max(len(row), 1)] * len(row) for row in group["chunks"]]
  return _fill(weights, 0.0)


def _panel_name(
  i: int, group: dict[str, Any], groups: Sequence[dict[str, Any]]
) -> str:
  """The group, and the retrieval head where there are several."""
  name = f"group {group.get('group', i) + 1}"
  several = len({g.get("head", 0) for g in groups}) > 1
  return f"{name}, head {group.get('head', 0) + 1}" if several else name


def _recall(
  runs: Sequence[Run], variant: Variant, folder: pathlib.Path
) -> list[Block]:
  found = [r for run in runs if (r := _recall_of(run, variant)) is not None]
  if not found:
    return []
  image = variant_picture("recall", variant)
  plots.recall_by_group(found, title=variant.title, path=folder / image)
  return [Picture(image, "Recall@K and rank of the gold chunk, by group")]


def _recall_of(run: Run, variant: Variant) -> plots.Recall | None:
  lines = [
    (row["length"], row["diagnostics"])
    for row in rows_of(run, variant)
    if (row.get("diagnostics") or {}).get("recall_at_k_by_group")
  ]
  if not lines:
    return None
  recall = np.array([d["recall_at_k_by_group"] for _, d in lines], float)
  ranks = [d.get("rank_median_by_group") for _, d in lines]
  rank = np.array(ranks, float).T.tolist() if all(ranks) else []
  lengths = [length for length, _ in lines]
  return plots.Recall(run.name, lengths, recall.T.tolist(), rank)


def _distances(
  runs: Sequence[Run], variant: Variant, folder: pathlib.Path
) -> list[Block]:
  """One run: a line per length. Several: the longest length of each."""
  found: list[plots.Histogram] = []
  for run in runs:
    lines = [
      (row["length"], row["diagnostics"]["distance_histogram"])
      for row in rows_of(run, variant)
      if (row.get("diagnostics") or {}).get("distance_histogram")
    ]
    step = -(-len(lines) // _MOST_LENGTHS) or 1
    for length, table in (
      lines[::-1][::step][::-1] if len(runs) == 1 else (lines[-1:])
    ):
      name = format_length(length)
      label = name if len(runs) == 1 else f"{run.name}, {name}"
      found.append(plots.Histogram(label, *zip(*table, strict=True)))
  if not found:
    return []
  image = variant_picture("distances", variant)
  title = f"{variant.title}: how far back the selected chunks are"
  plots.distances(found, title=title, path=folder / image)
  return [Picture(image, "Distance of the selected chunks")]


def _reads(
  runs: Sequence[Run], variant: Variant, folder: pathlib.Path
) -> list[Block]:
  blocks: list[Block] = []
  for i, run in enumerate(runs):
    found = find_reads(run, variant)
    if found is None:
      continue
    sample, reads = found
    image = variant_picture(f"reads{i or ''}", variant)
    where = f"sample {sample['sample']} at {format_length(sample['length'])}"
    plots.reads_picture(
      reads, title=f"{run.name}: {where}", path=folder / image
    )
    blocks.append(
      Picture(
        image,
        f"{run.name}, {where}: which chunks each answer token read; framed:"
        " the chunk that holds the answer",
      )
    )
  return blocks
