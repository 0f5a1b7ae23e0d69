"""What this machine does with a configuration, as shares of what it can do.

    make bench
    python benchmarks/bench.py --config=configs/quickstart.py --repeats=5

Measured in one run, so that the shares mean something: the rate of float32
matrix products, the training step, streaming prefill into host memory at two
context lengths, compilations and device memory. Medians over repeats; useful
operations by `hsa_jax.models.flops`. Prints a table and writes JSON with
hardware and versions. Run it on an otherwise idle machine.
"""

import argparse
import functools
import pathlib
import statistics
import sys
import time
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from hsa_jax.cli.evaluate_flags import DEFAULT_SEGMENT
from hsa_jax.config import (
  Config,
  StageConfig,
  config_hash,
  fits_devices,
)
from hsa_jax.data.pipeline import Batch
from hsa_jax.inference import SegmentReader, make_reader, stream
from hsa_jax.memory import HostMemory
from hsa_jax.models import LanguageModel, flops
from hsa_jax.parallel import (
  make_mesh,
  place_batch,
  prepare_host,
)
from hsa_jax.training.optimizer import make_optimizer
from hsa_jax.training.program import Leaves, StepPrograms
from hsa_jax.training.state import abstract_state, init_state

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import measure

STEPS_PER_REPEAT = 3


class Prefilled(NamedTuple):
  """One streamed context."""

  tokens: int
  seconds: float
  device_bytes: int
  host_bytes: int


def main() -> None:
  """Measures, prints, writes."""
  flags = read_flags()
  cfg = measure.read_config(flags.config)
  prepare_host(lambda count: fits_devices(cfg, count))  # as train.py does
  report = {
    "config": pathlib.Path(flags.config).stem,
    "config_hash": config_hash(cfg),
    "hardware": measure.hardware(),
    "versions": measure.versions(),
    "repeats": flags.repeats,
  }
  measure.say("matrix products ...")
  products = [measure_matmul(cfg, flags)]
  measure.say("training step ...")
  report["training"] = [
    measure_training(cfg, stage, repeats=flags.repeats)
    for stage in distinct_stages(cfg)
  ]
  products.append(measure_matmul(cfg, flags))
  measure.say("streaming prefill ...")
  report["prefill"] = [
    measure_prefill(cfg, flags, mesh) for mesh in prefill_meshes(cfg)
  ]
  products.append(measure_matmul(cfg, flags))
  add_shares(report, products)
  path = measure.write_json(report, flags.out, f"bench_{report['config']}")
  print("\n".join(table(report)))
  print(f"written to {path}")


def read_flags() -> argparse.Namespace:
  """The command line."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--config", default="configs/quickstart.py")
  parser.add_argument("--out", default="benchmarks/results")
  parser.add_argument("--repeats", type=int, default=25)
  parser.add_argument("--batch", type=int, default=1, help="rows of a segment")
  parser.add_argument(
    "--segment", type=int, default=DEFAULT_SEGMENT, help="its tokens"
  )
  parser.add_argument(
    "--segments",
    type=int,
    nargs=2,
    default=(32, 128),
    metavar=("SHORT", "LONG"),
  )
  return parser.parse_args()


def measure_matmul(
  cfg: Config, flags: argparse.Namespace
) -> list[measure.MatmulRate]:
  """float32 products of square shapes and of the model's own."""
  dim, mlp, rows = cfg.model.embed_dim, cfg.model.mlp_dim, flags.segment
  shapes = {
    "square 1024": (1024, 1024, 1024),
    "square 2048": (2048, 2048, 2048),
    "up projection": (rows, dim, mlp),
    "down projection": (rows, mlp, dim),
    "square projection": (rows, dim, dim),
  }
  return measure.matmul_rates(shapes, repeats=flags.repeats)


def add_shares(
  report: dict[str, Any], products: list[list[measure.MatmulRate]]
) -> None:
  """Relates the rates to the best product seen at any time of this run."""
  best = [
    max(same, key=lambda rate: rate.flops_per_s)
    for same in zip(*products, strict=True)
  ]
  peak = max(rate.flops_per_s for rate in best)
  report["matmul"] = [rate._asdict() for rate in best]
  report["matmul_flops_per_s"] = peak
  for row in [*report["training"], *report["prefill"]]:
    row["share_of_matmul"] = row["useful_flops_per_s"] / peak


def distinct_stages(cfg: Config) -> list[StageConfig]:
  """One stage for each shape of batch."""
  return list({(s.batch_size, s.seq_len): s for s in cfg.data.stages}.values())


def measure_training(
  cfg: Config, stage: StageConfig, *, repeats: int
) -> dict[str, Any]:
  """Seconds per optimizer step on random tokens; the state is donated."""
  mesh = make_mesh(cfg.mesh)
  tx = make_optimizer(cfg.optimizer, num_steps=cfg.num_steps)

  def build(rngs: nnx.Rngs) -> LanguageModel:
    return LanguageModel(cfg.model, rngs=rngs)

  abstract = abstract_state(build, tx, mesh=mesh)
  with jax.set_mesh(mesh):
    state = init_state(build, tx, seed=0, abstract=abstract)
    batch = place_batch(random_batch(cfg, stage), mesh)
    programs = StepPrograms(cfg, tx, abstract, mesh=mesh)
    leaves = programs.pack(state)
    program = programs.program(leaves, batch)
    seconds = time_steps(program, leaves, batch, repeats=repeats)
  tokens = stage.batch_size * stage.seq_len
  per_token = flops.training_flops_per_token(cfg.model, stage.seq_len)
  return {
    "stage": stage.name,
    "batch_size": stage.batch_size,
    "seq_len": stage.seq_len,
    "step_s": seconds,
    "tokens_per_s": tokens / seconds,
    "useful_flops_per_s": per_token * tokens / seconds,
    "temp_bytes": analysis_of(program).temp_size_in_bytes,
  }


def random_batch(cfg: Config, stage: StageConfig) -> Batch:
  """A batch of the stage's shape."""
  rng = np.random.default_rng(0)
  shape = (stage.batch_size, stage.seq_len)
  tokens = rng.integers(cfg.model.vocab_size, size=(2, *shape), dtype=np.int32)
  ones = np.ones(shape, np.float32)
  return Batch(tokens[0], tokens[1], ones, np.zeros_like(ones))


def time_steps(
  program: Any, leaves: Leaves, batch: Batch, *, repeats: int
) -> float:
  """Median seconds per step, a few steps in flight as in training."""
  leaves, metrics = program(leaves, batch)
  jax.block_until_ready(metrics)
  seconds = []
  for _ in range(repeats):
    start = time.perf_counter()
    for _ in range(STEPS_PER_REPEAT):
      leaves, metrics = program(leaves, batch)
    jax.block_until_ready(metrics)
    seconds.append((time.perf_counter() - start) / STEPS_PER_REPEAT)
  return statistics.median(seconds)


def prefill_meshes(cfg: Config) -> list[Mesh | None]:
  """One device, then all of them, as `eval.py --prefill` has it."""
  return [None] if jax.device_count() == 1 else [None, make_mesh(cfg.mesh)]


def measure_prefill(
  cfg: Config, flags: argparse.Namespace, mesh: Mesh | None
) -> dict[str, Any]:
  """Streams two contexts through one program, chunks into host memory."""
  model = LanguageModel(cfg.model, rngs=nnx.Rngs(0))
  prefill = make_reader(
    model, batch=flags.batch, segment=flags.segment, mesh=mesh
  )
  run = functools.partial(prefill_once, prefill, flags.segment)
  run(flags.segments[0])  # compiles
  runs = {}
  for count in flags.segments:
    repeated = [run(count) for _ in range(flags.repeats)]
    seconds = statistics.median(r.seconds for r in repeated)
    runs[count] = repeated[-1]._replace(seconds=seconds)
  longest = runs[flags.segments[1]]
  rate = longest.tokens * flags.batch / longest.seconds
  useful = rate * flops.prefill_flops_per_token(cfg.model)
  return {
    "devices": 1 if mesh is None else mesh.size,
    "batch": flags.batch,
    "segment": flags.segment,
    "tokens_per_s": rate,
    "useful_flops_per_s": useful,
    "compilations": prefill.num_compilations,
    "program_bytes": program_bytes(model, flags) if mesh is None else None,
    "contexts": [r._asdict() for r in runs.values()],
  }


def prefill_once(
  prefill: SegmentReader, segment: int, num_segments: int
) -> Prefilled:
  """Streams one context, as an evaluation does, and looks at memory."""
  cfg, length = prefill.model.cfg, num_segments * segment
  tokens = np.random.default_rng(0).integers(
    cfg.vocab_size, size=(prefill.batch, 2 * segment), dtype=np.int32
  )

  def source(start: int, stop: int) -> np.ndarray:
    return tokens[:, : stop - start]

  memory = HostMemory(length // cfg.hsa.chunk_size)
  keep = stream.tail_length(prefill.model, 16, length)
  start = time.perf_counter()
  suffix, memory = stream.read_context(
    prefill, source, memory, length=length, keep=keep
  )
  seconds = time.perf_counter() - start
  del suffix
  live = sum(x.nbytes for x in jax.live_arrays())
  return Prefilled(length, seconds, live, memory.nbytes().host)


def program_bytes(model: LanguageModel, flags: argparse.Namespace) -> int:
  """Device memory of the prefill program: parameters, carry, work, results.

  The compiler's own figure; no length of context enters it.
  """
  prefill = stream.Prefill(model, batch=flags.batch, segment=flags.segment)
  tokens = np.zeros((flags.batch, flags.segment), np.int32)
  carry = model.init_carry(flags.batch)
  program = jax.jit(prefill._run, donate_argnums=1)
  lowered = program.lower(model, carry, tokens, 0, flags.segment)
  analysis = analysis_of(lowered.compile())
  return (
    analysis.argument_size_in_bytes
    + analysis.output_size_in_bytes
    + analysis.temp_size_in_bytes
    - analysis.alias_size_in_bytes
  )


def analysis_of(program: Any) -> Any:
  """The compiler's account of a program's memory."""
  analysis = program.memory_analysis()
  if analysis is None:
    sys.exit(
      "error: this backend does not tell how much memory a program takes"
    )
  return analysis


def table(report: dict[str, Any]) -> list[str]:
  """The report for people."""
  peak = report["matmul_flops_per_s"]
  lines = [
    measure.describe_machine(report),
    f"{'float32 products':34}{peak / 1e9:10.1f} GFLOP/s",
  ]
  for row in report["matmul"]:
    shape = " x ".join(map(str, row["shape"]))
    text = f"  {row['name']} {shape}"
    lines.append(f"{text:34}{row['flops_per_s'] / 1e9:10.1f} GFLOP/s")
  for row in report["training"]:
    name = f"training {row['batch_size']} x {row['seq_len']}"
    lines.append(
      rate_line(name, row) + f"  {row['step_s'] * 1e3:.0f} ms a step"
    )
  for prefill in report["prefill"]:
    lines += prefill_lines(prefill)
  return lines


def prefill_lines(prefill: dict[str, Any]) -> list[str]:
  """One way of reading, and what it holds in memory."""
  devices = f", {prefill['devices']} devices" * (prefill["devices"] > 1)
  name = f"prefill {prefill['batch']} x {prefill['segment']}{devices}"
  lines = [rate_line(name, prefill)]
  lines.append(f"{'prefill programs compiled':34}{prefill['compilations']:10}")
  if prefill["program_bytes"] is not None:
    program = prefill["program_bytes"] / 2**20
    lines.append(f"{'prefill program, device memory':34}{program:10.1f} MiB")
  for run in prefill["contexts"]:
    text = f"  after {run['tokens']:,} tokens"
    device, host = run["device_bytes"] / 2**20, run["host_bytes"] / 2**20
    lines.append(f"{text:34}{device:10.1f} MiB on device, {host:.1f} on host")
  return lines


def rate_line(name: str, row: dict[str, Any]) -> str:
  """Useful rate, its share of the products' rate, tokens per second."""
  return (
    f"{name:34}{row['useful_flops_per_s'] / 1e9:10.1f} GFLOP/s"
    f"  {row['share_of_matmul']:6.1%} of products"
    f"  {row['tokens_per_s']:,.0f} tokens/s"
  )


if __name__ == "__main__":
  main()
