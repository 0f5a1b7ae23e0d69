"""Search and read time of every memory home, beside what the machine allows.

    make bench-memory
    python benchmarks/memory.py --chunks=4K,64K --homes=host,disk --queries=1

Random chunks of the quickstart's shapes, or of those that the flags say. Each
home answers the same questions: some queries that see every chunk, searched in
one call and read in another, as a decode step (one query) and the suffix of a
prompt (many) do. Times are per query, medians over repeats.

The floor of a call is what it must move over the memory bandwidth, or what it
must compute over the rate of float32 matrix products, whichever is longer;
both rates are measured in this run, before and after, and the better counts. A
search moves every landmark once, a read the chunks that were selected, in the
type they are stored in. Between a host and an accelerator the bandwidth is that
of the upload. The file of the disk home has just been written: the system's
page cache holds what fits.

Prints a table; writes JSON with hardware and versions, and a plot of it. Run
it on an otherwise idle machine.
"""

import argparse
import functools
import pathlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh

from hsa_jax.config import HsaConfig, ModelConfig
from hsa_jax.evaluation.lengths import FlagError, format_length, parse_lengths
from hsa_jax.memory import (
  ChunkMemory,
  DiskMemory,
  Home,
  KvDtype,
  MemoryHomeError,
  Placement,
  Plan,
  available,
  make_memory,
  plan_memory,
)
from hsa_jax.parallel import prepare_host
from hsa_jax.types import ChunkBlock, Selection

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import measure
import memory_report

HOMES = {
  "device": (Home.DEVICE, KvDtype.COMPUTED),
  "sharded": (Home.SHARDED, KvDtype.COMPUTED),
  "host": (Home.HOST, KvDtype.COMPUTED),
  "host-bfloat16": (Home.HOST, KvDtype.BFLOAT16),
  "host-int8": (Home.HOST, KvDtype.INT8),
  "disk": (Home.DISK, KvDtype.COMPUTED),
}
FILL_BLOCK = 4_096  # chunks per append
PRODUCTS = {
  "square 1024": (1024, 1024, 1024),
  "square 2048": (2048, 2048, 2048),
}


class Rates(NamedTuple):
  """What a place can do at best, as measured."""

  bytes_per_s: float
  flops_per_s: float


class Work(NamedTuple):
  """What a call must move and compute."""

  nbytes: int
  flops: int

  def seconds(self, rates: Rates) -> float:
    """The floor: the slower of the two."""
    moved = self.nbytes / rates.bytes_per_s
    return max(moved, self.flops / rates.flops_per_s)


def main(argv: Sequence[str] | None = None) -> None:
  """Measures, prints, writes."""
  flags = read_flags(argv)
  cfg = model_config(flags)
  report = {
    "hardware": measure.hardware(),
    "versions": measure.versions(),
    "repeats": flags.repeats,
    "shapes": {
      "chunk_size": flags.chunk_size,
      "top_k": flags.top_k,
      "landmark_dim": flags.landmark_dim,
      "heads": flags.heads,
      "memory_heads": flags.memory_heads,
      "head_dim": flags.head_dim,
      "dtype": flags.dtype,
    },
  }
  measure.say("bandwidth and matrix products ...")
  before = measure_rates(flags.repeats)
  report["rows"] = [
    row
    for chunks in flags.chunks
    for home in flags.homes
    for row in measure_home(cfg, flags, home, chunks)
  ]
  add_floors(report, [before, measure_rates(flags.repeats)])
  if not report["rows"]:
    sys.exit("error: no home has room for any of these numbers of chunks")
  path = measure.write_json(report, flags.out, "memory")
  print(memory_report.table(report))
  print(f"\nwritten to {path} and {memory_report.plot(report, path)}")


def read_flags(argv: Sequence[str] | None) -> argparse.Namespace:
  """The command line."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add("--chunks", default="4K,16K,64K,256K,512K", help="held, as 4K,64K")
  add("--queries", default="1,64", help="per call, as 1,64")
  add("--homes", default=",".join(HOMES), help=f"of {', '.join(HOMES)}")
  add("--chunk-size", type=int, default=16, help="tokens of a chunk")
  add("--top-k", type=int, default=4, help="chunks that a query reads")
  add("--landmark-dim", type=int, default=128, help="over all memory heads")
  add("--heads", type=int, default=4, help="query heads of a read")
  add("--memory-heads", type=int, default=1, help="of keys and values")
  add("--head-dim", type=int, default=32)
  add("--dtype", default="float32", help="computed keys and values")
  add("--repeats", type=int, default=7)
  add("--folder", help="of the disk home; default: the temporary folder")
  add("--out", default="benchmarks/results")
  flags = parser.parse_args(argv)
  flags.homes = flags.homes.split(",")
  unknown = [home for home in flags.homes if home not in HOMES]
  if unknown:
    parser.error(f"--homes: {unknown[0]!r} is not one of {', '.join(HOMES)}")
  try:
    flags.chunks = parse_lengths(flags.chunks, "--chunks")
    flags.queries = parse_lengths(flags.queries, "--queries")
  except FlagError as error:
    parser.error(str(error))
  return flags


def model_config(flags: argparse.Namespace) -> ModelConfig:
  """A model that makes such chunks."""
  hsa = HsaConfig(
    chunk_size=flags.chunk_size,
    top_k=flags.top_k,
    num_memory_heads=flags.memory_heads,
    landmark_dim=flags.landmark_dim,
  )
  return ModelConfig(
    num_heads=flags.heads,
    head_dim=flags.head_dim,
    compute_dtype=flags.dtype,
    hsa=hsa,
  )


def measure_rates(repeats: int) -> dict[str, Rates]:
  """By where chunks are: one device, all devices, or beside them."""
  devices = jax.devices()
  places = {"device": devices[:1], "sharded": devices}
  rates = {}
  for place, used in places.items():
    products = measure.matmul_rates(PRODUCTS, repeats=repeats, devices=used)
    rates[place] = Rates(
      measure.read_rate(used, repeats=repeats),
      max(product.flops_per_s for product in products),
    )
  host = rates["device"]
  if devices[0].platform != "cpu":
    upload = measure.upload_rate(devices[0], repeats=repeats)
    host = host._replace(bytes_per_s=upload)
  return {**rates, "host": host, "disk": host}


def add_floors(
  report: dict[str, Any], seen: Sequence[dict[str, Rates]]
) -> None:
  """Relates every call to the best rates seen at any time of this run."""
  best = {
    place: Rates(*map(max, zip(*(rates[place] for rates in seen), strict=True)))
    for place in seen[0]
  }
  report["rates"] = {place: rates._asdict() for place, rates in best.items()}
  for row in report["rows"]:
    place, _ = HOMES[row["home"]]
    for call in ("search", "read"):
      work = Work(row[f"{call}_bytes"], row[f"{call}_flops"])
      row[f"{call}_floor_s"] = work.seconds(best[place])


def measure_home(
  cfg: ModelConfig, flags: argparse.Namespace, name: str, chunks: int
) -> Iterator[dict[str, Any]]:
  """One row per number of queries; none where the chunks do not fit."""
  measure.say(f"{format_length(chunks)} chunks, {name} ...")
  with tempfile.TemporaryDirectory(dir=flags.folder) as folder:
    try:
      plan = make_plan(cfg, name, chunks, folder)
      memory = make_memory(plan, folder=folder, placement=placement())
    except MemoryHomeError as error:
      measure.say(f"  left out: {error}")
      return
    memory = fill(memory, plan)
    for queries in flags.queries:
      row = measure_calls(memory, plan, cfg, queries, flags.repeats)
      yield {"home": name, "chunks": chunks, "queries": queries, **row}
    if isinstance(memory, DiskMemory):
      memory.close(delete=True)


def make_plan(cfg: ModelConfig, name: str, chunks: int, folder: str) -> Plan:
  """Room for the chunks.

  Raises:
    MemoryHomeError: if they do not fit.
  """
  home, kv_dtype = HOMES[name]
  return plan_memory(
    cfg,
    length=chunks * cfg.hsa.chunk_size,
    batch=1,
    home=home,
    free=available(folder),
    kv_dtype=kv_dtype,
    shards=jax.device_count(),
  )


def placement() -> Placement:
  """All devices, side by side."""
  devices = np.array(jax.devices())
  mesh = Mesh(devices, ("chunks",), axis_types=(AxisType.Auto,))
  return Placement(mesh, "chunks")


def fill(memory: ChunkMemory, plan: Plan) -> ChunkMemory:
  """Appends random landmarks; what the chunks hold does not matter."""
  layout, rng = plan.layout, np.random.default_rng(0)
  count = min(FILL_BLOCK, plan.num_chunks)
  shape = (1, count, layout.chunk_size, layout.memory_heads, layout.head_dim)
  keys = rng.standard_normal(shape, np.float32)
  keys = keys.astype(jnp.dtype(layout.dtype))
  lead = (1, count, layout.retrieval_heads, layout.landmark_dim)
  for start in range(0, plan.num_chunks, count):
    marks = rng.standard_normal(lead, np.float32)
    marks = marks.astype(jnp.dtype(layout.landmark_dtype))
    left = plan.num_chunks - start
    parts: list[Any] = [x[:, :left] for x in (marks, keys, keys)]
    memory = memory.append(ChunkBlock(*parts))
  return memory


def measure_calls(
  memory: ChunkMemory,
  plan: Plan,
  cfg: ModelConfig,
  queries: int,
  repeats: int,
) -> dict[str, Any]:
  """Seconds of a search and of the read of what it found."""
  layout, top_k, rng = plan.layout, cfg.hsa.top_k, np.random.default_rng(1)
  lead = (1, queries)
  ask = rng.standard_normal(
    (*lead, layout.retrieval_heads, layout.landmark_dim), np.float32
  )
  ask = jnp.asarray(ask, layout.landmark_dtype)
  search = functools.partial(
    memory.search,
    ask,
    num_visible=jnp.full((queries,), plan.num_chunks, jnp.int32),
    top_k=top_k,
  )
  searched = measure.time_calls(search, repeats=repeats)
  found = search()
  query = rng.standard_normal(
    (*lead, cfg.num_heads, layout.head_dim), np.float32
  )
  read = functools.partial(
    memory.read,
    jnp.asarray(query, layout.dtype),
    found,
    jnp.full(found.score.shape, 1 / top_k, jnp.float32),
    sink=0,
  )
  done = measure.time_calls(read, repeats=repeats)
  search_cost = search_work(plan, queries)
  read_cost = read_work(plan, cfg, queries, found)
  return {
    "search_s": searched.median_s,
    "search_bytes": search_cost.nbytes,
    "search_flops": search_cost.flops,
    "read_s": done.median_s,
    "read_bytes": read_cost.nbytes,
    "read_flops": read_cost.flops,
    "held_bytes": sum(memory.nbytes()),
  }


def search_work(plan: Plan, queries: int) -> Work:
  """Every landmark once; a product of each with each query."""
  layout, chunks = plan.layout, plan.num_chunks
  dim = layout.retrieval_heads * layout.landmark_dim
  return Work(chunks * layout.landmark_bytes, 2 * queries * chunks * dim)


def read_work(
  plan: Plan, cfg: ModelConfig, queries: int, found: Selection
) -> Work:
  """Each selected chunk once; scores and sums over K chunks per query."""
  layout = plan.layout
  distinct = len(np.unique(np.asarray(found.index)))
  per_query = 4 * cfg.num_heads * layout.head_dim
  per_query *= layout.chunk_size * cfg.hsa.top_k
  return Work(distinct * layout.record_bytes, queries * per_query)


if __name__ == "__main__":
  prepare_host()  # the sharded home wants several devices
  main()
