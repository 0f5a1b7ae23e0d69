"""The figures of a report: per cell, measurement point and length."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hsa_jax.ablation.grid import BASE
from hsa_jax.ablation.records import Table, tables_of
from hsa_jax.ablation.statistics import Estimate, over_seeds, paired_by_seed

Lines = Sequence[Mapping[str, Any]]


class Point(NamedTuple):
  """A cell at one length of a measurement.

  Attributes:
    cell: its name.
    table: the measurement.
    length: of the context, in tokens.
    samples: of each seed.
    value: over the seeds.
    difference: to the base, paired by seed; None for the base itself, or
      without a seed in common.
    recall: mean recall@K; None without a memory.
    precision: mean P(correct | recalled); None where nothing was recalled.
  """

  cell: str
  table: Table
  length: int
  samples: int
  value: Estimate
  difference: Estimate | None
  recall: float | None
  precision: float | None


def summarise(lines: Lines) -> list[Point]:
  """A point per cell, measurement and length, in the order of the lines."""
  groups: dict[tuple[str, Table, int], list[Mapping[str, Any]]] = {}
  for line in lines:
    for table in tables_of(line):
      key = (line["cell"], table, line["length"])
      groups.setdefault(key, []).append(line)
  return [
    _point(cell, table, length, rows, groups.get((BASE, table, length), []))
    for (cell, table, length), rows in groups.items()
  ]


def _point(
  cell: str, table: Table, length: int, rows: Lines, base: Lines
) -> Point:
  samples = min(row["num_samples"] for row in rows)
  counted = all(row.get("num_correct") is not None for row in rows)
  trials = samples if counted and table.figure == "score" else None
  bounded = table.figure != "perplexity"
  mine, theirs = (by_seed(part, table.figure) for part in (rows, base))
  values = list(mine.values())
  paired = cell != BASE and theirs
  return Point(
    cell,
    table,
    length,
    samples,
    over_seeds(values, trials=trials, bounded=bounded),
    paired_by_seed(mine, theirs, trials=trials, bounded=bounded)
    if paired
    else None,
    _mean(rows, "recall_at_k"),
    _mean(rows, "p_correct_given_recalled"),
  )


def by_seed(rows: Lines, figure: str) -> dict[int, float]:
  """One value per seed."""
  return {row["seed"]: float(row[figure]) for row in rows}


def _mean(rows: Lines, name: str) -> float | None:
  values = [row[name] for row in rows if row.get(name) is not None]
  return sum(values) / len(values) if values else None


def lengths_of(points: Sequence[Point]) -> list[int]:
  """All lengths, ascending."""
  return sorted({point.length for point in points})


def cells_of(points: Sequence[Point]) -> list[str]:
  """All cells, in order."""
  return list(dict.fromkeys(point.cell for point in points))


def at(points: Sequence[Point], cell: str, length: int) -> Point | None:
  """The point of a cell at a length of one measurement, if there is one."""
  found = [p for p in points if (p.cell, p.length) == (cell, length)]
  return found[0] if found else None
