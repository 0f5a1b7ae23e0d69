"""Prefill and decode of an HSA model beside full attention of the same width.

    python benchmarks/prefill_decode.py                       # on a GPU
    python benchmarks/prefill_decode.py --hsa-lengths=32M --repeats=1
    python benchmarks/prefill_decode.py --preset=tiny         # on a CPU

Random weights and tokens, one sequence, parameters in the compute type. Both
models have as many layers of the same width, MLP and vocabulary, and are timed
in the same run: the prefill until the logits of the next token are there, then
greedy decode steps, each until its token is known. The HSA model reads segment
by segment and runs its upper decoder on the suffix alone; a run of decode steps
covers whole chunks, so that encoding them is counted. Full attention takes the
cuDNN kernel where there is one, else XLA's; a step the quicker of the two.

Medians over repeats, after one run that compiles. Lengths at which the cache of
the full model does not fit are left empty there; --hsa-lengths names further
ones that it is not asked for. Prints a table; writes JSON with hardware and
versions, and a plot of it.
"""

import argparse
import functools
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from hsa_jax.config import HsaConfig, ModelConfig
from hsa_jax.evaluation.lengths import FlagError, format_length, parse_lengths
from hsa_jax.evaluation.pages import markdown_table
from hsa_jax.inference import Prefill, prefill_decoder
from hsa_jax.memory import Home, available, make_memory, plan_memory
from hsa_jax.memory.layout import format_bytes
from hsa_jax.models import LanguageModel

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import curves
import full_attention
import measure

CONFIGS = pathlib.Path(__file__).parent.parent / "configs"


class Preset(NamedTuple):
  """A model and what is asked of it."""

  model: ModelConfig
  lengths: str
  segment: int


PRESETS = {
  # 342M parameters with HSA.
  "345m": Preset(
    ModelConfig(
      vocab_size=32_768,
      embed_dim=1024,
      num_lower_layers=8,
      num_upper_layers=8,
      num_heads=16,
      num_kv_heads=16,
      head_dim=64,
      mlp_dim=4_224,
      window_size=512,
      compute_dtype="bfloat16",
      hsa=HsaConfig(
        chunk_size=64,
        top_k=32,
        num_memory_heads=1,
        landmark_dim=1024,
        encoder_mlp_dim=4_224,
      ),
    ),
    "8K,16K,32K,64K,128K,256K,512K",
    segment=16_384,
  ),
  "tiny": Preset(
    measure.read_config(str(CONFIGS / "quickstart.py")).model,
    "1K,4K,8K",
    segment=4_096,
  ),
}


def main(argv: Sequence[str] | None = None) -> None:
  """Measures, prints, writes."""
  flags = read_flags(argv)
  cfg = PRESETS[flags.preset].model
  models = {
    "hsa": build(LanguageModel, cfg),
    "full": build(full_attention.FullAttention, cfg),
  }
  kinds = full_attention.implementations(cfg.compute_dtype)
  report: dict[str, Any] = {
    "preset": flags.preset,
    "hardware": measure.hardware(),
    "versions": measure.versions(),
    "repeats": flags.repeats,
    "parameters": {
      name: sum(leaf.size for leaf in jax.tree.leaves(model))
      for name, model in models.items()
    },
    "full_attention": kinds,
    "rows": [],
  }
  for length in sorted({*flags.lengths, *flags.hsa_lengths}):
    measure.say(f"{format_length(length)} tokens ...")
    row: dict[str, Any] = {"tokens": length, "full": None}
    row["hsa"] = measure_hsa(models["hsa"], length, flags)
    if length in flags.lengths:
      row["full"] = measure_full(models["full"], length, flags, kinds)
    report["rows"].append(row)
  name = f"prefill_decode_{flags.preset}"
  path = measure.write_json(report, flags.out, name)
  print(table(report))
  print(f"\nwritten to {path} and {plot(report, path)}")


def read_flags(argv: Sequence[str] | None) -> argparse.Namespace:
  """The command line."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add("--preset", choices=PRESETS, default="345m")
  add("--lengths", help="tokens, as 8K,64K; default: the preset's")
  add("--hsa-lengths", help="further lengths, without full attention")
  add("--segment", type=int, help="tokens per call of the HSA prefill")
  add("--memory", choices=("device", "host"), default="device")
  add("--repeats", type=int, default=3)
  add("--out", default="benchmarks/results")
  flags = parser.parse_args(argv)
  preset = PRESETS[flags.preset]
  flags.segment = flags.segment or preset.segment
  try:
    lengths = flags.lengths or preset.lengths
    flags.lengths = parse_lengths(lengths, "--lengths")
    more = flags.hsa_lengths
    flags.hsa_lengths = parse_lengths(more, "--hsa-lengths") if more else ()
  except FlagError as error:
    parser.error(str(error))
  return flags


def build(kind: Callable[..., Any], cfg: ModelConfig) -> Any:
  """A random model, its parameters in the compute type."""

  @jax.jit
  def make() -> Any:
    model = kind(cfg, rngs=nnx.Rngs(0))
    return jax.tree.map(lambda x: x.astype(cfg.compute_dtype), model)

  return make()


def random_tokens(cfg: ModelConfig, length: int) -> np.ndarray:
  """Ids [1, length]."""
  rng = np.random.default_rng(0)
  return rng.integers(cfg.vocab_size, size=(1, length), dtype=np.int32)


def measure_hsa(
  model: LanguageModel, length: int, flags: argparse.Namespace
) -> dict[str, Any]:
  """Seconds of a prefill and of a decode step."""
  cfg, tokens = model.cfg, random_tokens(model.cfg, length)
  size = cfg.hsa.chunk_size
  segment = -(-min(flags.segment, length) // size) * size
  prefill = Prefill(model, batch=1, segment=segment)
  plan = plan_memory(
    cfg,
    length=length + decoded(cfg, flags.repeats),
    batch=1,
    home=Home(flags.memory),
    free=available(),
  )

  def run() -> Any:
    return prefill_decoder(
      prefill,
      lambda start, stop: tokens[:, start:stop],
      make_memory(plan),
      length=length,
    )

  prefill_s, decoder = time_prefill(run, flags.repeats)
  return {
    "prefill_s": prefill_s,
    "decode_s": time_decode(decoder, cfg, flags.repeats),
    "memory": flags.memory,
    "cache_bytes": sum(decoder.memory.nbytes()),
  }


def measure_full(
  model: full_attention.FullAttention,
  length: int,
  flags: argparse.Namespace,
  kinds: list[str],
) -> dict[str, Any] | None:
  """The same of full attention; None where its cache does not fit."""
  cfg = model.cfg
  room = length + len(kinds) * decoded(cfg, flags.repeats)
  needed, free = full_attention.cache_bytes(cfg, room), available().device
  if needed > free:
    measure.say(
      f"  full attention left out: its cache needs {format_bytes(needed)},"
      f" {format_bytes(free)} are free"
    )
    return None
  tokens = random_tokens(cfg, length)
  programs = full_attention.FullPrograms(model, room)
  run = functools.partial(programs.prefill, tokens, kinds[0])
  try:
    prefill_s, decoder = time_prefill(run, flags.repeats)
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise
    measure.say("  full attention left out: the device's memory is exhausted")
    return None
  steps = time_full_decode(decoder, cfg, flags.repeats, kinds)
  best = min(steps, key=lambda kind: steps[kind])
  return {
    "prefill_s": prefill_s,
    "decode_s": steps[best],
    "prefill_attention": kinds[0],
    "decode_attention": best,
    "cache_bytes": needed,
  }


def time_full_decode(
  decoder: full_attention.FullDecoder,
  cfg: ModelConfig,
  repeats: int,
  kinds: list[str],
) -> dict[str, float]:
  """Seconds per step by kernel; XLA's can always take a step."""
  seconds = {}
  for kind in reversed(kinds):
    decoder.implementation = kind
    try:
      seconds[kind] = time_decode(decoder, cfg, repeats)
    except Exception as error:
      if kind == "xla":
        raise
      reason = str(error).splitlines()[0]
      measure.say(f"  no decode step with {kind}: {reason}")
  return seconds


def time_prefill(run: Callable[[], Any], repeats: int) -> tuple[float, Any]:
  """Median seconds until the logits are there, and the last decoder."""
  seconds, decoder = [], None
  for _ in range(1 + repeats):
    del decoder  # Two caches might not fit.
    start = time.perf_counter()
    decoder = run()
    jax.block_until_ready(decoder.logits)
    seconds.append(time.perf_counter() - start)
  return statistics.median(seconds[1:]), decoder


def decoded(cfg: ModelConfig, repeats: int) -> int:
  """Tokens that `time_decode` adds."""
  return (1 + repeats) * cfg.hsa.chunk_size


def time_decode(decoder: Any, cfg: ModelConfig, repeats: int) -> float:
  """Median over runs of a chunk's length of the seconds per step."""
  steps, seconds = cfg.hsa.chunk_size, []
  for _ in range(1 + repeats):
    start = time.perf_counter()
    for _ in range(steps):
      decoder.step(np.asarray(jnp.argmax(decoder.logits, axis=-1)))
    jax.block_until_ready(decoder.logits)
    seconds.append((time.perf_counter() - start) / steps)
  return statistics.median(seconds[1:])


def table(report: dict[str, Any]) -> str:
  """The report for people."""
  counts = report["parameters"]
  kernels = " or ".join(report["full_attention"])
  lines = [
    measure.describe_machine(report),
    f"{report['preset']}: {counts['hsa']:,} parameters with HSA,"
    f" {counts['full']:,} with full attention ({kernels})\n",
  ]
  header = ("tokens", "HSA prefill ms", "full", "ratio")
  header += ("HSA ms/token", "full", "ratio")
  rows = [
    (
      format_length(row["tokens"]),
      *compared(row, "prefill_s"),
      *compared(row, "decode_s"),
    )
    for row in report["rows"]
  ]
  return "\n".join([*lines, markdown_table(header, rows)])


def compared(row: dict[str, Any], field: str) -> tuple[str, str, str]:
  """Milliseconds of both models; how many times longer full attention takes."""
  ours = row["hsa"][field]
  if row["full"] is None:
    return f"{1e3 * ours:.2f}", "", ""
  theirs = row["full"][field]
  return f"{1e3 * ours:.2f}", f"{1e3 * theirs:.2f}", f"{theirs / ours:.2f}"


def plot(report: dict[str, Any], path: pathlib.Path) -> pathlib.Path:
  """A panel for the prefill and one for the decode step, beside the JSON."""
  titles = {"prefill_s": "prefill", "decode_s": "decode, per token"}
  panels = []
  for field, title in titles.items():
    lines = []
    for model, label in {"hsa": "HSA", "full": "full attention"}.items():
      rows = [row for row in report["rows"] if row[model]]
      sizes = [row["tokens"] for row in rows]
      times = [row[model][field] for row in rows]
      lines.append(curves.Line(label, sizes, times))
    panels.append(curves.Panel(title, lines))
  machine = report["hardware"]
  curves.draw(
    panels,
    title=f"{report['preset']}: {machine['device']}, {machine['cores']} cores",
    size="tokens of the prompt",
    time="time",
    path=path.with_suffix(".png"),
  )
  return path.with_suffix(".png")


if __name__ == "__main__":
  main()
