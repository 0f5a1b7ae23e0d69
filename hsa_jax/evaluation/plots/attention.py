"""Where full layers look, by the length of the context."""

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hsa_jax.evaluation.plots import style


class LayerLine(NamedTuple):
  """One layer of one run.

  Attributes:
    label: of the line.
    lengths: ascending, in tokens.
    mass: on the needle, in [0, 1].
    low: lower ends of its 95% intervals.
    high: upper ends.
    entropy: of the attention, in nats.
  """

  label: str
  lengths: Sequence[int]
  mass: Sequence[float]
  low: Sequence[float]
  high: Sequence[float]
  entropy: Sequence[float]


def attention_by_length(
  lines: Sequence[LayerLine], *, path: str | os.PathLike
) -> None:
  """Writes two panels: mass on the needle with its intervals, and entropy."""
  figure = style.new_figure(9.0, 4.0)
  left, right = figure.subplots(1, 2)
  for i, line in enumerate(lines):
    look = {
      "color": style.colour(i),
      "marker": style.marker(i),
      "linestyle": style.line_style(i),
      "markersize": 5,
      "linewidth": 1.7,
    }
    mass, low, high = (np.asarray(v, float) for v in line[2:5])
    error = np.maximum([mass - low, high - mass], 0)
    left.errorbar(
      line.lengths, mass, yerr=error, label=line.label, capsize=3, **look
    )
    right.plot(line.lengths, line.entropy, **look)
  lengths = sorted({length for line in lines for length in line.lengths})
  for axes in (left, right):
    style.length_axis(axes, lengths, most=6)
  style.tidy(
    left, x="context length (tokens)", y="mass on the needle, 95% interval"
  )
  style.tidy(right, x="context length (tokens)", y="entropy (nats)")
  left.set_ylim(bottom=0)
  figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9)
  style.save(figure, path)
