"""Table and plot of what `memory.py` measured."""

import pathlib
from typing import Any

import curves
import measure

from hsa_jax.evaluation.lengths import format_length
from hsa_jax.evaluation.pages import markdown_table

TIMES = ("search_s", "search_floor_s", "read_s", "read_floor_s")


def table(report: dict[str, Any]) -> str:
  """The report for people."""
  devices = report["hardware"]["num_devices"]
  lines = [measure.describe_machine(report)]
  for place in ("device", "sharded", "host"):
    rates = report["rates"][place]
    lines.append(
      f"{place}: {rates['bytes_per_s'] / 1e9:.1f} GB/s,"
      f" {rates['flops_per_s'] / 1e9:.1f} GFLOP/s of float32 products"
    )
  lines.append(f"microseconds per query; sharded over {devices} devices\n")
  header = ("queries", "chunks", "home", "search", "floor", "read", "floor")
  header += ("MiB held",)
  rows = [
    (
      str(row["queries"]),
      format_length(row["chunks"]),
      row["home"],
      *(per_query(row, field) for field in TIMES),
      f"{row['held_bytes'] / 2**20:.0f}",
    )
    for row in sorted(report["rows"], key=lambda row: row["queries"])
  ]
  return "\n".join([*lines, markdown_table(header, rows)])


def per_query(row: dict[str, Any], field: str) -> str:
  """Microseconds, three digits."""
  return f"{1e6 * row[field] / row['queries']:.3g}"


def plot(report: dict[str, Any], path: pathlib.Path) -> pathlib.Path:
  """A panel for each number of queries, beside the JSON."""
  counts = sorted({row["queries"] for row in report["rows"]})
  panels = [
    curves.Panel(
      f"{count} {'query' if count == 1 else 'queries'} at once",
      home_lines([row for row in report["rows"] if row["queries"] == count]),
    )
    for count in counts
  ]
  shapes = report["shapes"]
  curves.draw(
    panels,
    title=f"S = {shapes['chunk_size']}, K = {shapes['top_k']},"
    f" R = {shapes['landmark_dim']}: {report['hardware']['device']},"
    f" {report['hardware']['cores']} cores",
    size="chunks",
    time="search and read per query",
    path=path.with_suffix(".png"),
  )
  return path.with_suffix(".png")


def home_lines(rows: list[dict[str, Any]]) -> list[curves.Line]:
  """One for each home, and the lowest floor of all."""

  def seconds(row: dict[str, Any], kind: str) -> float:
    both = row[f"search_{kind}"] + row[f"read_{kind}"]
    return both / row["queries"]

  found = []
  for home in dict.fromkeys(row["home"] for row in rows):
    own = [row for row in rows if row["home"] == home]
    sizes = [row["chunks"] for row in own]
    found.append(curves.Line(home, sizes, [seconds(r, "s") for r in own]))
  sizes = sorted({row["chunks"] for row in rows})
  floor = [
    min(seconds(r, "floor_s") for r in rows if r["chunks"] == size)
    for size in sizes
  ]
  return [*found, curves.Line("floor", sizes, floor, is_bound=True)]
