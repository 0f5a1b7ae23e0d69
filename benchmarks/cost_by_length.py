"""Cost of a row by its length: every kind of model beside full attention.

    python benchmarks/cost_by_length.py
    python benchmarks/cost_by_length.py --models=gla_tiny --lengths=1K,4K

Random weights and tokens, the models of `configs/`: seconds of the forward pass
to the last hidden state and of the gradient of a training loss with respect to
every parameter, each block computed again in the backward pass (`remat =
block`). A call has as many tokens at every length, so more rows of the shorter
ones, which a processor's caches would flatter otherwise; seconds are per row. A
repeat times every model at every length in turn, so that what else the machine
does meets all of them. Medians, after one run that compiles.

Beside them stands what a decoder remembers behind so many tokens and behind 1M:
states, windows and caches of the layers, and the chunks. Prints tables with the
growth from each length to the next, and writes JSON with hardware and versions,
and a plot beside it.
"""

import argparse
import dataclasses
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from hsa_jax.config import Remat
from hsa_jax.evaluation.lengths import format_length, parse_lengths
from hsa_jax.evaluation.pages import markdown_table
from hsa_jax.evaluation.pages.blocks import format_bytes
from hsa_jax.inference.caches import capacity_of
from hsa_jax.memory.layout import layout_of_config
from hsa_jax.models import LanguageModel
from hsa_jax.models.parameters import count_parameters
from hsa_jax.ops.loss import cross_entropy

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import curves
import measure

CONFIGS = pathlib.Path(__file__).parent.parent / "configs"
MODELS = (
  "quickstart,quickstart_swa,drt_tiny,mamba2_tiny,gla_tiny,full_nope_tiny"
)
WORK = ("forward", "gradient")
LONGEST = 1 << 20  # tokens
Call = Callable[[], Any]


def read_flags(arguments: Sequence[str]) -> argparse.Namespace:
  """The command line."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--models", default=MODELS)
  parser.add_argument("--lengths", default="1K,4K,16K")
  parser.add_argument("--repeats", type=int, default=5)
  parser.add_argument("--out", default="benchmarks/results")
  flags = parser.parse_args(arguments)
  flags.models = flags.models.split(",")
  flags.lengths = parse_lengths(flags.lengths)
  return flags


def main(arguments: Sequence[str] | None = None) -> None:
  """Measures, prints, writes."""
  flags = read_flags(sys.argv[1:] if arguments is None else arguments)
  configs = {
    name: dataclasses.replace(
      measure.read_config(str(CONFIGS / f"{name}.py")).model, remat=Remat.BLOCK
    )
    for name in flags.models
  }
  tokens, memory = max(flags.lengths), []
  calls: dict[tuple[str, str, int], Call] = {}
  for name, cfg in configs.items():
    model = jax.jit(lambda cfg=cfg: LanguageModel(cfg, rngs=nnx.Rngs(0)))()
    for length in (*flags.lengths, LONGEST):
      size = remembered(model, length)
      memory.append({"model": name, "tokens": length, **size})
    for length in flags.lengths:
      for work, call in make_calls(model, length, tokens // length).items():
        measure.say(f"compiling {name}, {work}, {format_length(length)}")
        jax.block_until_ready(call())
        calls[name, work, length] = call
  seconds = time_in_turn(calls, repeats=flags.repeats)
  report = {
    "hardware": measure.hardware(),
    "versions": measure.versions(),
    "repeats": flags.repeats,
    "parameters": {n: count_parameters(c).total for n, c in configs.items()},
    "rows": [
      {
        "model": name,
        "work": work,
        "tokens": length,
        "rows": tokens // length,
        "seconds": value / (tokens // length),
      }
      for (name, work, length), value in seconds.items()
    ],
    "memory": memory,
  }
  path = measure.write_json(report, flags.out, "cost_by_length")
  picture = draw(report, path.with_suffix(".png"))
  print(table(report))
  print(f"\nwritten: {path}, {picture}")


def remembered(model: LanguageModel, length: int) -> dict[str, int]:
  """Bytes that a decoder of one row keeps behind so many tokens."""
  cfg, room = model.cfg, capacity_of(length)
  carry = jax.eval_shape(
    lambda: (model.init_carry(1, room), model.init_upper_carry(1, room))
  )
  layers = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(carry))
  chunks = 0
  if cfg.hsa.num_groups:
    layout = layout_of_config(cfg, batch=1)
    each = layout.landmark.itemsize + layout.record.itemsize
    chunks = length // cfg.hsa.chunk_size * each
  return {"layer_bytes": layers, "chunk_bytes": chunks}


def make_calls(model: LanguageModel, length: int, rows: int) -> dict[str, Call]:
  """The two kinds of work on rows of so many tokens."""
  rng = np.random.default_rng(0)
  row = rng.integers(0, model.cfg.vocab_size, (rows, length + 1), np.int32)

  @jax.jit
  def forward(model: LanguageModel, row: jax.Array) -> jax.Array:
    return model.hidden(row[:, :-1])[:, -1]

  @jax.jit
  @jax.grad
  def gradient(model: LanguageModel, row: jax.Array) -> jax.Array:
    return jnp.mean(cross_entropy(model(row[:, :-1]), row[:, 1:]))

  return {
    "forward": lambda: forward(model, row),
    "gradient": lambda: gradient(model, row),
  }


def time_in_turn(calls: dict[Any, Call], *, repeats: int) -> dict[Any, float]:
  """Median seconds of each call; a repeat runs all of them once."""
  seconds: dict[Any, list[float]] = {key: [] for key in calls}
  for _ in range(repeats):
    for key, call in calls.items():
      start = time.perf_counter()
      jax.block_until_ready(call())
      seconds[key].append(time.perf_counter() - start)
  return {key: statistics.median(values) for key, values in seconds.items()}


def growth(report: dict[str, Any], model: str, work: str) -> list[float | None]:
  """Time over that of the length before, by ascending length."""
  found = {
    row["tokens"]: row["seconds"]
    for row in report["rows"]
    if (row["model"], row["work"]) == (model, work)
  }
  times = [found[length] for length in sorted(found)]
  ratios = [b / a for a, b in zip(times, times[1:], strict=False)]
  return [None, *ratios]


def draw(report: dict[str, Any], path: pathlib.Path) -> pathlib.Path:
  """Seconds by length, a panel per kind of work, a line per model."""
  lengths = sorted({row["tokens"] for row in report["rows"]})
  panels = []
  for work in WORK:
    lines = []
    for name in report["parameters"]:
      mine = {
        row["tokens"]: row["seconds"]
        for row in report["rows"]
        if (row["model"], row["work"]) == (name, work)
      }
      lines.append(curves.Line(name, lengths, [mine[n] for n in lengths]))
    panels.append(curves.Panel(work, lines))
  curves.draw(
    panels,
    title=f"one row, {measure.describe_machine(report)}",
    size="tokens",
    time="time",
    path=path,
  )
  return path


def table(report: dict[str, Any]) -> str:
  """The report for people."""
  lengths = sorted({row["tokens"] for row in report["rows"]})
  seconds = {
    (row["model"], row["work"], row["tokens"]): row["seconds"]
    for row in report["rows"]
  }
  rows = []
  for name, count in report["parameters"].items():
    for work in WORK:
      cells = []
      for length, ratio in zip(
        lengths, growth(report, name, work), strict=True
      ):
        text = f"{seconds[name, work, length]:.2f} s"
        cells.append(text if ratio is None else f"{text} (x {ratio:.2f})")
      rows.append((f"{name} ({count:,})", work, *cells))
  header = ("model", "work", *map(format_length, lengths))
  times = markdown_table(header, rows)
  return f"{measure.describe_machine(report)}\n\n{times}\n\n{sizes(report)}"


def sizes(report: dict[str, Any]) -> str:
  """What each model remembers: its layers, then its chunks."""
  lengths = sorted({row["tokens"] for row in report["memory"]})
  rows = []
  for name in report["parameters"]:
    mine = {r["tokens"]: r for r in report["memory"] if r["model"] == name}
    for what in ("layer_bytes", "chunk_bytes"):
      cells = [format_bytes(mine[length][what]) for length in lengths]
      if any(mine[length][what] for length in lengths):
        rows.append((name, what.partition("_")[0] + "s", *cells))
  header = ("remembers", "in", *map(format_length, lengths))
  return markdown_table(header, rows)


if __name__ == "__main__":
  main()
