"""What the memory was asked for, and what it gave: reads, recall, distances."""

import os
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib.ticker
import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle

from hsa_jax.evaluation.lengths import format_length
from hsa_jax.evaluation.plots import style

MOST_CHUNKS = 36  # columns of the retrieval picture
MOST_TOKENS = 24  # rows of it
GOLD = "#D55E00"


class Reads(NamedTuple):
  """The chunks that the answer tokens of one sample read.

  Attributes:
    tokens: the answer tokens as text, n of them.
    gold: chunk that each should read; -1 where there is no single one.
    chunks: per group (and head), (n, K) chunk ids; -1 for an empty slot.
    weights: per group, (n, K), of the same slots.
    num_chunks: in the memory.
    names: of the groups, and of their heads if there are several.
  """

  tokens: Sequence[str]
  gold: Int[np.ndarray, " n"]
  chunks: Sequence[Int[np.ndarray, "n K"]]
  weights: Sequence[Float[np.ndarray, "n K"]]
  num_chunks: int
  names: Sequence[str]


class Recall(NamedTuple):
  """One run's retrieval by length.

  Attributes:
    label: name of the run.
    lengths: ascending.
    recall: per group, recall@K at each length.
    rank: per group, median rank of the gold chunk at each length; 1 is best.
      Empty if it was not measured.
  """

  label: str
  lengths: Sequence[int]
  recall: Sequence[Sequence[float]]
  rank: Sequence[Sequence[float]]


class Histogram(NamedTuple):
  """How far back the selected chunks are.

  Attributes:
    label: in the legend.
    low: first distance of each bucket, ascending.
    high: last distance of each bucket.
    counts: selected chunks in it.
  """

  label: str
  low: Sequence[float]
  high: Sequence[float]
  counts: Sequence[float]


def reads_picture(reads: Reads, *, title: str, path: str | os.PathLike) -> None:
  """Writes answer tokens down, chunks read across, shaded by their weight.

  Columns are the chunks that were read at all, in the order of the context, so
  that a million tokens take no more room than a thousand; the heaviest ones
  where they are too many. Frames mark the chunk that holds the answer.
  """
  tokens = reads.tokens[:MOST_TOKENS]
  columns = shown_chunks(reads)
  width = 1.9 + 0.27 * max(len(columns), 12)
  panel = 0.75 + 0.23 * len(tokens)
  figure = style.new_figure(width, panel * len(reads.chunks) + 0.9)
  grid = np.ravel(figure.subplots(len(reads.chunks), 1, squeeze=False))
  shade = ScalarMappable(Normalize(0, 1), "Blues")
  for group, axes in enumerate(grid):
    table = weight_table(reads, group, columns)[: len(tokens)]
    axes.pcolormesh(
      table,
      cmap=shade.cmap,
      norm=shade.norm,
      edgecolors="#eeeeee",
      linewidth=0.6,
    )
    _frame_gold(axes, reads.gold[: len(tokens)], columns)
    axes.invert_yaxis()
    axes.set_yticks(np.arange(len(tokens)) + 0.5, map(_visible, tokens))
    axes.tick_params(length=0, labelsize=8, colors=style.INK)
    axes.spines[:].set_visible(False)
    axes.set_title(reads.names[group], fontsize=9, loc="left")
    axes.set_xticks([])
  _name_chunks(grid[-1], columns)
  grid[-1].set_xlabel(
    f"chunks read, of {reads.num_chunks:,}, in the order of the context",
    fontsize=9,
    color=style.INK,
  )
  figure.suptitle(title, fontsize=10, color=style.INK)
  bar = figure.colorbar(shade, ax=list(grid), pad=0.02, aspect=25)
  bar.set_label("weight", fontsize=9, color=style.INK)
  bar.ax.tick_params(labelsize=8, colors=style.INK)
  bar.outline.set_visible(False)
  style.save(figure, path)


def shown_chunks(reads: Reads) -> list[int]:
  """The columns: the gold chunks and the heaviest others, by position."""
  gold = {int(chunk) for chunk in reads.gold if chunk >= 0}
  total: dict[int, float] = {}
  for chunks, weights in zip(reads.chunks, reads.weights, strict=True):
    for chunk, weight in zip(np.ravel(chunks), np.ravel(weights), strict=True):
      if chunk >= 0:
        total[int(chunk)] = total.get(int(chunk), 0.0) + float(weight)
  others = sorted(total.keys() - gold, key=lambda chunk: -total[chunk])
  return sorted([*gold, *others[: max(MOST_CHUNKS - len(gold), 0)]])


def weight_table(
  reads: Reads, group: int, columns: Sequence[int]
) -> Float[np.ndarray, "n C"]:
  """Weight of each column's chunk for each answer token, in one group.

  A chunk that several heads read counts with the largest of its weights.
  """
  table = np.zeros((len(reads.tokens), len(columns)))
  place = {chunk: i for i, chunk in enumerate(columns)}
  for row, (chunks, weights) in enumerate(
    zip(reads.chunks[group], reads.weights[group], strict=True)
  ):
    for chunk, weight in zip(chunks, weights, strict=True):
      if int(chunk) in place:
        i = place[int(chunk)]
        table[row, i] = max(table[row, i], float(weight))
  return table


def recall_by_group(
  recalls: Sequence[Recall], *, title: str, path: str | os.PathLike
) -> None:
  """Writes recall@K, and the median rank where it is known, by length."""
  ranked = any(recall.rank for recall in recalls)
  figure = style.new_figure(9.6 if ranked else 6.4, 3.6)
  plots = np.ravel(figure.subplots(1, 1 + ranked, squeeze=False))
  for i, recall in enumerate(recalls):
    _draw_groups(plots[0], recall, recall.recall, i, len(recalls))
    if ranked and recall.rank:
      _draw_groups(plots[1], recall, recall.rank, i, len(recalls))
  lengths = sorted({length for recall in recalls for length in recall.lengths})
  for axes in plots:
    style.length_axis(axes, lengths, most=7)
  style.tidy(plots[0], x="context length (tokens)", y="recall@K")
  plots[0].set_ylim(-0.04, 1.04)
  if ranked:
    style.tidy(
      plots[1],
      x="context length (tokens)",
      y="median rank of the gold chunk",
    )
    plots[1].set_yscale("log", base=2)
    plots[1].yaxis.set_major_formatter(_plain_ticks())
    plots[1].set_ylim(bottom=0.8)
  figure.suptitle(title, fontsize=10, color=style.INK)
  handles, names = plots[0].get_legend_handles_labels()
  figure.legend(
    handles,
    names,
    loc="outside lower center",
    ncols=4,
    frameon=False,
    fontsize=9,
    handlelength=3,
  )
  style.save(figure, path)


def distances(
  histograms: Sequence[Histogram], *, title: str, path: str | os.PathLike
) -> None:
  """Writes how far back the selected chunks are, as shares, in log2 buckets."""
  figure = style.new_figure(7.2, 3.8)
  axes = figure.subplots()
  for i, histogram in enumerate(histograms):
    edges = np.array([*histogram.low, histogram.high[-1] + 1], float)
    counts = np.asarray(histogram.counts, float)
    axes.stairs(
      counts / max(counts.sum(), 1),
      np.maximum(edges, 0.5),
      color=style.colour(i),
      linestyle=style.LINES[i % len(style.LINES)],
      linewidth=1.8,
      label=histogram.label,
    )
  style.tidy(
    axes, x="distance (chunks)", y="share of selected chunks", title=title
  )
  axes.set_xscale("log", base=2)
  axes.xaxis.set_major_formatter(_plain_ticks())
  axes.set_ylim(bottom=0)
  figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9)
  style.save(figure, path)


def _draw_groups(
  axes: Axes,
  recall: Recall,
  groups: Sequence[Sequence[float]],
  i: int,
  count: int,
) -> None:
  """Colours tell runs apart and strokes groups; groups alone take both."""
  for group, values in enumerate(groups):
    key = group if count == 1 else i
    name = f"group {group + 1}" if count == 1 else recall.label
    if count > 1 and len(groups) > 1:
      name = f"{recall.label}, group {group + 1}"
    axes.plot(
      recall.lengths,
      values,
      label=name,
      color=style.colour(key),
      marker=style.marker(key),
      linestyle=style.LINES[group % len(style.LINES)],
      markersize=4.5,
      linewidth=1.7,
    )


def _frame_gold(
  axes: Axes, gold: Int[np.ndarray, " n"], columns: Sequence[int]
) -> None:
  for row, chunk in enumerate(gold):
    if int(chunk) in columns:
      corner = columns.index(int(chunk)) + 0.06, row + 0.06
      axes.add_patch(
        Rectangle(corner, 0.88, 0.88, fill=False, edgecolor=GOLD, lw=1.8)
      )


def _name_chunks(axes: Axes, columns: Sequence[int]) -> None:
  axes.set_xticks(
    np.arange(len(columns)) + 0.5,
    [f"{chunk:,}" for chunk in columns],
    rotation=90,
  )
  axes.tick_params(axis="x", labelsize=7.5)


def _plain_ticks() -> matplotlib.ticker.Formatter:
  return matplotlib.ticker.FuncFormatter(
    lambda value, _: format_length(int(value)) if value >= 1 else "0"
  )


def _visible(token: str) -> str:
  """A token as one can see it: blanks and line ends included."""
  text = token.replace("\n", "\\n").replace("\t", "\\t").replace(" ", "\u00b7")
  return text if text.isprintable() and text else repr(token)[1:-1]
