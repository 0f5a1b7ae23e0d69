"""How fast text becomes tokens and tokens become batches, beside what pods eat.

    python benchmarks/data.py
    python benchmarks/data.py --tokenizers=byte,hf:data/tokenizers/sotu-8k.json
    python benchmarks/data.py --mfu=0.5 --workers=1,8,32 --size-mb=1000

Preparation: rows of real text, taken from --store again and again until there
are --size-mb of them, become a sharded store, once with each tokenizer and each
number of processes; the start of the processes is part of the time. Reading:
batches of plain text rows of each config, as many rows as one host of its pod
gets, out of the sharded store that was just made. It lies in the page cache, so
the disk is not measured.

A host of a pod consumes

    MFU x peak of a chip x chips per host / training operations per token

tokens a second, with the useful operations of `models/flops.py` and --mfu (0.4
unless said otherwise; few runs are above it). `per core` divides by seconds of
processor time in place of seconds, so it holds on a busy machine too. Prints
tables, writes JSON with hardware and versions.
"""

import argparse
import itertools
import json
import os
import pathlib
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from hsa_jax.config import Config, DataConfig, SourceConfig, StageConfig
from hsa_jax.data.pipeline import TrainData
from hsa_jax.data.shards import build_shards
from hsa_jax.data.sources import Shares, source_of_rows
from hsa_jax.data.store import TokenStore
from hsa_jax.data.tokenizer import Tokenizer, load_tokenizer
from hsa_jax.models.flops import training_flops_per_token
from hsa_jax.parallel.chips import CHIPS

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import measure

ROW_BYTES = 3_000  # of text, about a web page
SHARES = Shares(valid=0.01, test=0.01)
CHIPS_PER_HOST = 4


class Pod(NamedTuple):
  """Where a shipped config is meant to run."""

  config: str
  chip: str
  chips: int

  @property
  def hosts(self) -> int:
    """Machines that make batches."""
    return self.chips // CHIPS_PER_HOST


# Configs that are not there are left out.
PODS = (
  Pod("paper_240m", "v5e", 16),
  Pod("paper_240m", "v5e", 256),
  Pod("hsa_1b", "v5p", 64),
  Pod("hsa_1b", "v5e", 512),
  Pod("hsa_8b", "v6e", 256),
)


class Rate(NamedTuple):
  """What some work took.

  Attributes:
    tokens: that came out.
    seconds: of the clock.
    cpu_seconds: of all processes together.
  """

  tokens: int
  seconds: float
  cpu_seconds: float

  @property
  def tokens_per_s(self) -> float:
    """By the clock."""
    return self.tokens / self.seconds

  @property
  def tokens_per_core_s(self) -> float:
    """By processor time."""
    return self.tokens / self.cpu_seconds


class Prepared(NamedTuple):
  """One preparation."""

  tokenizer: str
  workers: int
  mb_per_s: float
  rate: Rate


class Consumption(NamedTuple):
  """What a host of a pod needs, and what it can read.

  Attributes:
    pod: of the config.
    needed: tokens per second and host.
    read: with one thread, rows of the config's length.
  """

  pod: Pod
  needed: float
  read: Rate

  def cores_to_prepare(self, rate: Rate) -> float:
    """That make tokens as fast as the whole pod consumes them."""
    return self.needed * self.pod.hosts / rate.tokens_per_core_s


def main(argv: Sequence[str] | None = None) -> int:
  """Measures, prints, writes; returns the exit code."""
  args = read_flags(argv)
  with tempfile.TemporaryDirectory(dir=args.scratch or None) as scratch:
    folder = pathlib.Path(scratch)
    rows = write_rows(args.store, folder / "rows.jsonl", args.size_mb)
    prepared = []
    for spec, workers in itertools.product(args.tokenizers, args.workers):
      measure.say(f"{spec}, {workers} processes")
      out = folder / f"store-{len(prepared)}"
      prepared.append(prepare(rows, spec, workers, out))
    store = TokenStore.open(folder / "store-0")
    tokenizer = load_tokenizer(store.tokenizer_spec)
    pods = [pod for pod in PODS if config_path(pod).exists()]
    consumed = [consume(pod, store, tokenizer, args) for pod in pods]
  report = {
    "hardware": measure.hardware(),
    "versions": measure.versions(),
    "size_mb": args.size_mb,
    "mfu": args.mfu,
    "chips_per_host": CHIPS_PER_HOST,
    "prepared": [_fields(row, row.rate) for row in prepared],
    "consumed": [
      {**row.pod._asdict(), "needed": row.needed, **row.read._asdict()}
      for row in consumed
    ],
  }
  print(measure.describe_machine(report))
  print(f"\n{prepared_table(prepared)}\n")
  print(consumed_table(consumed, prepared[-1], args.mfu))
  print(measure.write_json(report, args.out, "data"))
  return 0


def write_rows(store: str, path: pathlib.Path, size_mb: float) -> pathlib.Path:
  """JSON lines of the training text of a store, repeated as needed."""
  source = TokenStore.open(store)
  decode = load_tokenizer(source.tokenizer_spec).decode
  texts = [decode(ids) for ids in source.documents("train")]
  left = size_mb * 1e6
  with path.open("w", encoding="utf-8") as f:
    for number, text in enumerate(_pages(texts)):
      # The number makes every row a document of its own.
      line = json.dumps({"text": f"{number}\n{text}"}, ensure_ascii=False)
      left -= f.write(line + "\n")
      if left <= 0:
        return path
  return path


def prepare(
  rows: pathlib.Path, spec: str, workers: int, out: pathlib.Path
) -> Prepared:
  """Makes a store of 16 shards."""
  size = rows.stat().st_size
  tokenizer = load_tokenizer(spec)

  def make() -> int:
    source = source_of_rows(
      [str(rows)],
      field="text",
      shard_bytes=size // 16 + 1,
      shares=SHARES,
      workers=workers,
    )
    store = build_shards(source, tokenizer, out, workers=workers)
    return store.index["num_tokens"]

  rate = timed(make)
  name = pathlib.Path(spec).stem.removeprefix("hf:")
  return Prepared(name, workers, size / 1e6 / rate.seconds, rate)


def consume(
  pod: Pod, store: TokenStore, tokenizer: Tokenizer, args: argparse.Namespace
) -> Consumption:
  """Reads what one host of a pod reads."""
  cfg = measure.read_config(str(config_path(pod)))
  stage = cfg.data.stages[-1]
  flops = training_flops_per_token(cfg.model, stage.seq_len)
  needed = args.mfu * CHIPS[pod.chip].peak_flops * CHIPS_PER_HOST / flops
  rows = max(stage.batch_size // pod.hosts, 1)
  stages = (
    StageConfig("read", args.steps + 1, stage.seq_len, rows, (SourceConfig(),)),
  )
  data = TrainData(Config(data=DataConfig(stages=stages)), store, tokenizer)
  data.batch(args.steps)

  def read() -> int:
    return sum(data.batch(step).tokens.size for step in range(args.steps))

  return Consumption(pod, needed, timed(read))


def timed(work: Callable[[], int]) -> Rate:
  """Clock and processor time of something that counts its tokens."""
  cpu, start = _cpu_seconds(), time.perf_counter()
  tokens = work()
  seconds = time.perf_counter() - start
  return Rate(tokens, seconds, _cpu_seconds() - cpu)


def config_path(pod: Pod) -> pathlib.Path:
  """File of the config."""
  return pathlib.Path("configs") / f"{pod.config}.py"


def prepared_table(rows: Sequence[Prepared]) -> str:
  """Preparation in columns."""
  head = "tokenizer            processes    MB/s  Mtokens/s  Mtokens/s per core"
  lines = [
    f"{row.tokenizer[:20]:20} {row.workers:9} {row.mb_per_s:7.1f}"
    f" {row.rate.tokens_per_s / 1e6:10.2f}"
    f" {row.rate.tokens_per_core_s / 1e6:19.2f}"
    for row in rows
  ]
  return "\n".join([head, *lines])


def consumed_table(
  rows: Sequence[Consumption], prepared: Prepared, mfu: float
) -> str:
  """Needed and read tokens in columns, and the cores that keep up."""
  head = (
    f"Mtokens/s of a host at MFU {mfu:.2f}; cores that prepare with"
    f" {prepared.tokenizer} as fast as the pod reads\n"
    "config       chips     hosts   needed  read, one core   times     cores"
  )
  lines = [
    f"{row.pod.config:12} {row.pod.chips:4} {row.pod.chip:4} {row.pod.hosts:5}"
    f" {row.needed / 1e6:8.3f} {row.read.tokens_per_core_s / 1e6:15.1f}"
    f" {row.read.tokens_per_core_s / row.needed:7.0f}"
    f" {row.cores_to_prepare(prepared.rate):9.1f}"
    for row in rows
  ]
  return "\n".join([head, *lines])


def read_flags(argv: Sequence[str] | None) -> argparse.Namespace:
  """The command line."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add("--store", default="data/sotu-byte", help="where the text comes from")
  add("--tokenizers", type=_names, default=["byte"], help="specs, with commas")
  add("--workers", type=_numbers, default=_powers(), help="as 1,2,4")
  add("--size-mb", type=float, default=128, help="text to prepare")
  add("--steps", type=int, default=200, help="batches to read")
  add("--mfu", type=float, default=0.4, help="of the needed rate")
  add("--scratch", default="", help="folder for the stores; default: /tmp")
  add("--out", default="benchmarks/results", help="folder of the JSON")
  return parser.parse_args(argv)


def _pages(texts: Sequence[str]) -> Iterator[str]:
  for text in itertools.cycle(texts):
    for start in range(0, len(text), ROW_BYTES):
      yield text[start : start + ROW_BYTES]


def _cpu_seconds() -> float:
  """Of this process and of those that it has waited for."""
  used = [
    resource.getrusage(who)
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
  ]
  return sum(u.ru_utime + u.ru_stime for u in used)


def _fields(row: Prepared, rate: Rate) -> dict[str, object]:
  fields = row._asdict()
  del fields["rate"]
  return {**fields, **rate._asdict()}


def _names(text: str) -> list[str]:
  return [name for name in text.split(",") if name]


def _numbers(text: str) -> list[int]:
  return [int(part) for part in text.split(",")]


def _powers() -> list[int]:
  cores = len(os.sched_getaffinity(0))
  return [2**i for i in range(cores.bit_length()) if 2**i <= cores]


if __name__ == "__main__":
  sys.exit(main())
