"""Tables and plots, made from the results files alone, at any time.

`write_report` describes one run, `write_comparison` puts several side by side.
"""

import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from hsa_jax.evaluation import plots
from hsa_jax.evaluation.lengths import format_length
from hsa_jax.evaluation.results import (
  RunInfo,
  latest_results,
  read_info,
  read_lines,
)

NEEDLE_SUITE, TEXT_SUITE = "hsa_ruler", "ppl"
_TEXT_PROTOCOLS = (
  "`by_position`: whole windows, every token a target, streamed beyond 4K."
  " `last_N`: the same N last tokens behind each context, streamed, with the"
  " upper decoder on the exact suffix. Intervals: bootstrap over samples."
)


class Run(NamedTuple):
  """What the files of a results folder say.

  Attributes:
    info: what was evaluated.
    results: one line per measurement point, the latest.
    predictions: one line per sample.
  """

  info: RunInfo
  results: list[dict]
  predictions: list[dict]


class Variant(NamedTuple):
  """A needle task with one kind of haystack and needle."""

  task: str
  haystack: str
  needle: str

  @property
  def title(self) -> str:
    return f"{self.task}, {self.haystack} haystack, {self.needle} needle"

  @property
  def file_name(self) -> str:
    return f"{self.task}_{self.haystack}_{self.needle}"


def load_run(path: str | os.PathLike) -> Run:
  """Reads a results folder.

  Raises:
    ResultsError: if it is not one.
  """
  folder = pathlib.Path(path)
  info = read_info(folder)
  results = latest_results(read_lines(folder / "results.jsonl"))
  return Run(info, results, read_lines(folder / "predictions.jsonl"))


def write_report(workdir: str | os.PathLike) -> pathlib.Path:
  """Makes `report.md` and the plots of one run in its own folder.

  Returns:
    The path of the report.

  Raises:
    ResultsError: if the folder holds no results.
  """
  folder, run = pathlib.Path(workdir), load_run(workdir)
  parts = [f"# Evaluation of {run.info.name}", _facts(run.info)]
  for variant in variants([run]):
    image = f"{variant.file_name}.png"
    plots.heat_map(
      _cells(run, variant),
      title=f"{run.info.name}: {variant.title}",
      path=folder / image,
    )
    parts += [
      f"## {variant.title}",
      needle_table(_rows(run, variant)),
      f"![Exact match by depth and length]({image})",
    ]
  text = [row for row in run.results if row["suite"] == TEXT_SUITE]
  if text:
    parts += ["## Held-out text", _TEXT_PROTOCOLS, *_text_tables(text)]
  return _write(folder / "report.md", parts)


def write_comparison(
  paths: Sequence[str | os.PathLike], out: str | os.PathLike
) -> pathlib.Path:
  """Makes `report.md` and plots of several runs side by side in `out`.

  Raises:
    ResultsError: if one of the folders holds no results.
  """
  folder, runs = pathlib.Path(out), [load_run(path) for path in paths]
  folder.mkdir(parents=True, exist_ok=True)
  parts = ["# Comparison", runs_table(runs)]
  for variant in variants(runs):
    image = f"{variant.file_name}.png"
    plots.accuracy_by_length(
      [_curve(run, variant) for run in runs],
      title=variant.title,
      path=folder / image,
    )
    parts += [
      f"## {variant.title}",
      comparison_table(runs, variant),
      f"![Exact match by context length]({image})",
    ]
  text = text_comparison_table(runs)
  if text:
    parts += ["## Held-out text, bits per byte", text]
  return _write(folder / "report.md", parts)


def variants(runs: Sequence[Run]) -> list[Variant]:
  """The needle tasks that any of the runs has results for, in order."""
  found = [
    Variant(row["task"], row["haystack"], row["needle"])
    for run in runs
    for row in run.results
    if row["suite"] == NEEDLE_SUITE
  ]
  return list(dict.fromkeys(found))


def needle_table(rows: Sequence[dict]) -> str:
  """Scores and diagnostics of one needle task, a line per length."""
  header = (
    "length",
    "exact match [95%]",
    "token accuracy",
    "recall@K",
    "P(correct \\| recalled)",
    "unique text",
    "tokens/s",
    "peak RSS",
  )
  lines = [
    (
      format_length(row["length"]),
      format_score(row),
      f"{row['token_accuracy']:.3f}",
      _number(row["recall_at_k"], ".3f"),
      _number(row["p_correct_given_recalled"], ".3f"),
      f"{100 * row['unique_fraction']:.3g}%",
      f"{row['tokens_per_s']:,.0f}",
      format_bytes(row["peak_rss_bytes"]),
    )
    for row in rows
  ]
  return table(header, lines)


def comparison_table(runs: Sequence[Run], variant: Variant) -> str:
  """One needle task: lengths down, runs across."""
  by_run = [{r["length"]: r for r in _rows(run, variant)} for run in runs]
  lengths = sorted(set().union(*by_run))
  header = ("length", *(run.info.name for run in runs))
  lines = [
    (
      format_length(length),
      *(
        format_score(rows[length]) if length in rows else "" for rows in by_run
      ),
    )
    for length in lengths
  ]
  return table(header, lines)


def text_comparison_table(runs: Sequence[Run]) -> str:
  """Bits per byte of held-out text: protocols down, runs across; "" if none."""
  by_run = [
    {
      (r["task"], r["length"]): r
      for r in run.results
      if r["suite"] == TEXT_SUITE
    }
    for run in runs
  ]
  points = list(dict.fromkeys(point for rows in by_run for point in rows))
  if not points:
    return ""
  header = ("protocol", "context", *(run.info.name for run in runs))
  lines = [
    (
      point[0],
      format_length(point[1]),
      *(_bits(rows[point]) if point in rows else "" for rows in by_run),
    )
    for point in points
  ]
  return table(header, lines)


def runs_table(runs: Sequence[Run]) -> str:
  """What is compared."""
  header = ("run", "parameters", "steps", "trained at", "receptive field")
  lines = [
    (
      run.info.name,
      f"{run.info.num_parameters:,}",
      f"{run.info.step:,}",
      f"{run.info.train_length:,} tokens",
      _field(run.info),
    )
    for run in runs
  ]
  return table(header, lines)


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
  """A Markdown table with padded columns, legible as plain text too."""
  widths = [
    max(map(len, column)) for column in zip(header, *lines, strict=True)
  ]

  def line(cells: Sequence[str]) -> str:
    padded = [c.ljust(w) for c, w in zip(cells, widths, strict=True)]
    return f"| {' | '.join(padded)} |"

  rule = f"|{'|'.join('-' * (w + 2) for w in widths)}|"
  return "\n".join([line(header), rule, *map(line, lines)])


def format_score(row: dict) -> str:
  """`19/20 0.95 [0.76, 0.99]`: never a bare percentage."""
  return (
    f"{row['num_correct']}/{row['num_samples']} {row['score']:.2f}"
    f" [{row['ci_low']:.2f}, {row['ci_high']:.2f}]"
  )


def format_bytes(count: int) -> str:
  """1536 -> `1.5 KiB`."""
  size, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
  while size >= 1024 and len(units) > 1:
    size, units = size / 1024, units[1:]
  return f"{size:.3g} {units[0]}"


def _rows(run: Run, variant: Variant) -> list[dict]:
  rows = [
    row
    for row in run.results
    if row["suite"] == NEEDLE_SUITE
    and Variant(row["task"], row["haystack"], row["needle"]) == variant
  ]
  return sorted(rows, key=lambda row: row["length"])


def _cells(run: Run, variant: Variant) -> list[plots.Sample]:
  """Samples behind the result lines, and no others."""
  wanted = {(r["length"], r["num_samples"]) for r in _rows(run, variant)}
  return [
    plots.Sample(row["length"], row["depth"], row["correct"])
    for row in run.predictions
    if row["suite"] == NEEDLE_SUITE
    and Variant(row["task"], row["haystack"], row["needle"]) == variant
    and (row["length"], row["num_samples"]) in wanted
  ]


def _curve(run: Run, variant: Variant) -> plots.Curve:
  points = [
    plots.Point(r["length"], r["score"], r["ci_low"], r["ci_high"])
    for r in _rows(run, variant)
  ]
  return plots.Curve(
    run.info.name, points, run.info.train_length, run.info.receptive_field
  )


def _text_tables(rows: Sequence[dict]) -> list[str]:
  header = (
    "protocol",
    "context",
    "targets",
    "nats/token [95%]",
    "perplexity",
    "bits/byte [95%]",
  )
  lines = [
    (
      row["task"],
      format_length(row["length"]),
      f"{row['num_targets']:,}",
      f"{row['score']:.4f} [{row['ci_low']:.4f}, {row['ci_high']:.4f}]",
      f"{row['perplexity']:.3f}",
      _bits(row),
    )
    for row in rows
  ]
  parts = [table(header, lines)]
  for row in rows:
    if row["buckets"]:
      parts += ["By position in the window:", _bucket_table(row["buckets"])]
  return parts


def _bucket_table(buckets: Sequence[dict]) -> str:
  lines = [
    (
      f"{b['first']}-{b['last']}",
      f"{b['num_targets']:,}",
      f"{b['nats_per_token']:.4f}",
      f"{b['perplexity']:.3f}",
    )
    for b in buckets
  ]
  return table(("positions", "targets", "nats/token", "perplexity"), lines)


def _bits(row: dict) -> str:
  return (
    f"{row['bits_per_byte']:.4f} [{row['bits_per_byte_low']:.4f},"
    f" {row['bits_per_byte_high']:.4f}]"
  )


def _facts(info: RunInfo) -> str:
  facts: list[tuple[str, Any]] = [
    ("checkpoint", info.checkpoint),
    ("steps", f"{info.step:,}"),
    ("parameters", f"{info.num_parameters:,}"),
    ("trained at", f"{info.train_length:,} tokens"),
    ("receptive field", _field(info)),
    ("model configuration", info.config_hash),
    ("tokenizer", info.tokenizer[:12]),
    ("token store", info.store[:12]),
    ("evaluation seed", info.seed),
    ("keys and values stored as", info.kv_dtype),
  ]
  return "\n".join(f"- {name}: {value}" for name, value in facts)


def _field(info: RunInfo) -> str:
  if info.receptive_field is None:
    return "whole context"
  return f"{info.receptive_field:,} tokens"


def _number(value: float | None, spec: str) -> str:
  return "" if value is None else format(value, spec)


def _write(path: pathlib.Path, parts: Sequence[str]) -> pathlib.Path:
  """Replaces the file at once, so that a reader never sees half of it."""
  temporary = path.with_name(f".{path.name}.tmp")
  temporary.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
  temporary.replace(path)
  return path
