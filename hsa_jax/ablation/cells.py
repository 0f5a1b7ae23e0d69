"""Estimates as cells of tables."""

from hsa_jax.ablation.statistics import Estimate, is_clear
from hsa_jax.evaluation import pages


def value_cell(value: Estimate) -> pages.Cell:
  """`0.97 [0.93, 1.00]`, `~` where the interval is over samples only."""
  shade = value.mean if 0 <= value.mean <= 1 else None
  return pages.Cell(f"{value.mean:.2f}{_interval(value)}", value.mean, shade)


def difference_cell(value: Estimate | None) -> pages.Cell:
  """`-0.45 [-0.60, -0.30]*`: a star where the interval leaves out zero."""
  if value is None:
    return pages.Cell("")
  star = "*" * is_clear(value)
  return pages.Cell(
    f"{value.mean:+.2f}{_interval(value, '+')}{star}", value.mean
  )


def _interval(value: Estimate, sign: str = "") -> str:
  if value.interval is None:
    return ""
  low, high = value.interval
  mark = "~" if value.over == "samples" else ""
  return f" [{low:{sign}.2f}, {high:{sign}.2f}]{mark}"
