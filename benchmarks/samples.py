"""Time and memory that it takes to make one sample of every evaluation task.

    python benchmarks/samples.py --store=data/sotu-byte
    python benchmarks/samples.py --length=1M --suites=ruler --tasks=vt,cwe

Suites hand their samples to an engine; here the engine is a stopwatch. Each
task is asked for at --length, or at the greatest length below that it is
defined at. The texts it reads are loaded and tokenized beforehand, by making a
short sample. Measured are the seconds until the sample stands, the resident
memory that this adds at its peak (Linux only), and the rate at which all of its
tokens are rendered in segments.

The bars: less than a second, and less than 300 MB. Prints a table, writes JSON
with hardware and versions; exit code 1 if a bar is missed.
"""

import argparse
import contextlib
import pathlib
import re
import sys
import time
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast

from hsa_jax.config import Config, Haystack
from hsa_jax.data.sample import Sample
from hsa_jax.data.store import TokenStore
from hsa_jax.data.tokenizer import load_tokenizer
from hsa_jax.evaluation import SUITES, Asked, FlagError, Job, Session, Settings
from hsa_jax.evaluation.lengths import (
  SampleCount,
  format_length,
  parse_length,
)

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import measure

ENGINES = ("run_forced_job", "run_generated_job")
FALLBACK = 128 << 10  # tokens; for tasks that are not defined at --length
WARM = 16 << 10
SEGMENT = 64 << 10
MAX_SECONDS, MAX_BYTES = 1.0, 300e6

Make = Callable[[int], Sample]


class Row(NamedTuple):
  """What one task took.

  Attributes:
    suite, task, haystack, length: of the sample.
    seconds: until it stood.
    bytes: resident memory added at the peak; None where it is not known.
    tokens_per_s: rendered in segments.
  """

  suite: str
  task: str
  haystack: str
  length: int
  seconds: float
  bytes: int | None
  tokens_per_s: float

  @property
  def fits(self) -> bool:
    """Whether both bars are kept."""
    return self.seconds < MAX_SECONDS and (self.bytes or 0) < MAX_BYTES


def main(argv: Sequence[str] | None = None) -> int:
  """Measures, prints, writes; returns the exit code."""
  flags = read_flags(argv)
  store = TokenStore.open(flags.store)
  tokenizer = load_tokenizer(store.tokenizer_spec)
  tasks = tuple(flags.tasks.split(",")) if flags.tasks else ()

  def asked(length: int) -> Asked:
    settings = Settings(
      (length,),
      (SampleCount(1, 2),),
      tasks=tasks,
      haystacks=tuple(Haystack),
      assets=flags.assets,
    )
    return Asked(settings, tokenizer, store, Config())

  rows = [
    row
    for suite in SUITES
    if not flags.suites or suite.name in flags.suites.split(",")
    for row in measure_suite(suite, asked, flags.length)
  ]
  report = {
    "hardware": measure.hardware(),
    "versions": measure.versions(),
    "tokenizer": store.tokenizer_spec,
    "rows": [row._asdict() for row in rows],
  }
  path = measure.write_json(report, flags.out, "samples")
  print(table(rows))
  print(f"written: {path}")
  return 0 if all(row.fits for row in rows) else 1


def measure_suite(
  suite: Any, asked: Callable[[int], Asked], length: int
) -> Iterator[Row]:
  """One row per task and haystack, of suites that have samples."""
  longest: dict[tuple[str, str], tuple[Job, Asked]] = {}
  for tokens in dict.fromkeys((min(FALLBACK, length), length)):
    this = asked(tokens)
    with contextlib.suppress(FlagError):
      for job in suite.jobs(this):
        longest[job.task, job.haystack] = job, this
  for job, this in longest.values():
    warm = asked(min(WARM, job.length))
    short = Job(**{**job.key, "length": warm.settings.lengths[0]})
    if (maker := find_maker(suite, warm, short)) is not None:
      maker(0)
      yield measure_job(suite, this, job)


def measure_job(suite: Any, asked: Asked, job: Job) -> Row:
  """Makes sample 1 and renders it all."""
  measure.say(f"{suite.name} {job.name} ...")
  maker = find_maker(suite, asked, job)
  assert maker is not None, "it had one for the short sample"
  before = start_peak()
  start = time.perf_counter()
  sample = maker(1)
  seconds = time.perf_counter() - start
  start = time.perf_counter()
  for at in range(0, sample.length, SEGMENT):
    sample.segment(at, min(at + SEGMENT, sample.length))
  rate = sample.length / (time.perf_counter() - start)
  added = None if before is None else read_status("VmHWM") - before
  kind = (suite.name, job.task, job.haystack, job.length)
  return Row(*kind, seconds, added, rate)


def find_maker(suite: Any, asked: Asked, job: Job) -> Make | None:
  """What a suite gives its engine to make samples; None if it has none."""
  found: list[Make] = []

  def engine(session: Any, job: Job, make: Make, **rest: Any) -> dict:
    found.append(make)
    return {}

  session = types.SimpleNamespace(**asked._asdict())
  with engines(engine), contextlib.suppress(AttributeError):
    suite.run(cast(Session, session), job)
  return found[0] if found else None


@contextlib.contextmanager
def engines(engine: Callable[..., dict]) -> Iterator[None]:
  """Puts `engine` in the place of every engine, wherever it is imported."""
  modules = [
    module
    for name, module in list(sys.modules.items())
    if name.startswith("hsa_jax.evaluation.")
  ]
  kept = [
    (module, name, vars(module)[name])
    for module in modules
    for name in ENGINES
    if name in vars(module)
  ]
  for module, name, _ in kept:
    setattr(module, name, engine)
  try:
    yield
  finally:
    for module, name, value in kept:
      setattr(module, name, value)


def start_peak() -> int | None:
  """Begins a new peak; resident bytes now, or None without /proc."""
  try:
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    return read_status("VmRSS")
  except OSError:
    return None


def read_status(field: str) -> int:
  """A field of /proc/self/status, in bytes."""
  text = pathlib.Path("/proc/self/status").read_text()
  match = re.search(rf"^{field}:\s+(\d+) kB$", text, re.MULTILINE)
  return int(match[1]) * 1024 if match else 0


def table(rows: Sequence[Row]) -> str:
  """The rows in columns; a bar that is missed is marked."""
  head = "suite             task              haystack     length   seconds"
  lines = [f"{head}     MB   Mtokens/s"]
  for row in rows:
    mega = "-" if row.bytes is None else f"{row.bytes / 1e6:.0f}"
    lines.append(
      f"{row.suite:17} {row.task:17} {row.haystack[:12]:12}"
      f" {format_length(row.length):>6} {row.seconds:9.3f} {mega:>6}"
      f" {row.tokens_per_s / 1e6:11.1f}{'' if row.fits else '  <- too much'}"
    )
  return "\n".join(lines)


def read_flags(argv: Sequence[str] | None) -> argparse.Namespace:
  """The command line."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add("--store", default="data/sotu-byte", help="token store to read")
  add("--assets", default="data/assets", help="fetched files of ruler")
  add("--length", type=parse_length, default=32 << 20, help="tokens, as 32M")
  add("--suites", default="", help="some of them; default: all")
  add("--tasks", default="", help="some of them; default: all")
  add("--out", default="benchmarks/results", help="folder of the JSON")
  return parser.parse_args(argv)


if __name__ == "__main__":
  sys.exit(main())
