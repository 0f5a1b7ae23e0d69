"""What every suite is given: the model, the data, the settings, the files."""

import dataclasses
import enum
import functools
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
from jax.sharding import Mesh

from hsa_jax.config import Config, Haystack, Needle
from hsa_jax.data.ruler.tasks import EssaySource
from hsa_jax.data.store import TokenStore
from hsa_jax.data.tokenizer import Tokenizer
from hsa_jax.evaluation.lengths import SampleCount, format_length
from hsa_jax.evaluation.progress import Progress
from hsa_jax.evaluation.results import ResultStore
from hsa_jax.inference import SegmentReader, make_reader
from hsa_jax.memory import Home, KvDtype, KvPlace
from hsa_jax.models import LanguageModel
from hsa_jax.parallel import READ_AXIS, replicated

T = TypeVar("T")


class Diagnostics(enum.StrEnum):
  """How much is told of the retrieval behind each answer."""

  BASIC = "basic"  # recall
  FULL = "full"  # also ranks, distances, and what a few samples read


class PrefillKind(enum.StrEnum):
  """How the lower decoder reads a context."""

  AUTO = "auto"  # halo where there are several devices and it can be
  SEQUENTIAL = "sequential"  # segment after segment, with caches
  HALO = "halo"  # a segment on each device, with the tokens in front of it


@dataclasses.dataclass(frozen=True)
class Settings:
  """What to measure, as given on the command line.

  Attributes:
    lengths: context lengths in tokens, answer and eos included.
    samples: how many per length.
    tasks: names of `--tasks`; empty: what each suite runs by itself.
    haystacks: kinds of filler of the needle tasks.
    needle: kind of value that is hidden.
    segment: tokens per call of the prefill program, over all devices.
    batch: sequences read at the same time.
    seed: of all evaluation samples.
    diagnostics: of retrieval; never changes an answer.
    assets: folder of files that were fetched for benchmarks.
    essays: what the essay tasks of RULER hide needles in.
    memory: where chunks live; every home gives the same answers.
    kv_dtype: how host and disk store keys and values; all but `computed` round.
    kv_place: where the sharded home keeps keys and values.
    prefill: how contexts are read; both give the same answers.
    babilong_facts: folder of published bAbI files; empty: our own stories.
    babilong_books: folder of texts to hide them in; empty: the test split.
  """

  lengths: tuple[int, ...]
  samples: tuple[SampleCount, ...]
  tasks: tuple[str, ...] = ()
  haystacks: tuple[Haystack, ...] = (Haystack.TEXT,)
  needle: Needle = Needle.DIGITS
  segment: int = 4096
  batch: int = 1
  seed: int = 0
  diagnostics: Diagnostics = Diagnostics.BASIC
  assets: str = "data/assets"
  essays: EssaySource = EssaySource.ESSAY
  memory: Home = Home.HOST
  kv_dtype: KvDtype = KvDtype.COMPUTED
  kv_place: KvPlace = KvPlace.DEVICE
  prefill: PrefillKind = PrefillKind.SEQUENTIAL
  babilong_facts: str = ""
  babilong_books: str = ""


@dataclasses.dataclass(frozen=True)
class Job:
  """One measurement: a task at one length.

  Attributes:
    suite, protocol, task, haystack, needle, length, num_samples: its key; see
      `results.KEY`. Haystack and needle are empty where a task has none.
  """

  suite: str
  protocol: str
  task: str
  haystack: str
  needle: str
  length: int
  num_samples: int

  @property
  def key(self) -> dict[str, Any]:
    return dataclasses.asdict(self)

  @property
  def name(self) -> str:
    kind = f" {self.haystack}" if self.haystack else ""
    return f"{self.task}{kind} {format_length(self.length)}"


class Footprint(NamedTuple):
  """Memory in use, in bytes.

  Attributes:
    peak_rss_bytes: most resident memory of the process so far.
    device_bytes: arrays that live on the devices now.
  """

  peak_rss_bytes: int
  device_bytes: int


@dataclasses.dataclass
class Session:
  """One evaluation of one model.

  With a mesh every device holds the model, and all of them work together.
  """

  model: LanguageModel
  cfg: Config
  tokenizer: Tokenizer
  store: TokenStore
  settings: Settings
  results: ResultStore
  progress: Progress | None = None
  mesh: Mesh | None = None

  def __post_init__(self) -> None:
    if self.mesh is not None:
      self.model = jax.device_put(self.model, replicated(self.mesh))

  @functools.cached_property
  def prefill(self) -> SegmentReader:
    """The compiled programs all suites share."""
    settings = self.settings
    spread = settings.prefill is not PrefillKind.SEQUENTIAL
    return make_reader(
      self.model,
      batch=settings.batch,
      segment=settings.segment,
      mesh=self.mesh if spread else None,
      axis=READ_AXIS,
    )

  def pending(self, job: Job) -> list[int]:
    """Samples of a job that are not in the files yet."""
    done = self.results.finished(job.key)
    return [i for i in range(job.num_samples) if i not in done]

  def advance(self, tokens: int, *, samples: int = 0) -> None:
    if self.progress is not None:
      self.progress.advance(tokens, samples=samples)

  def skip(self, tokens: int) -> None:
    if self.progress is not None:
      self.progress.skip(tokens)

  def message(self, text: str) -> None:
    if self.progress is not None:
      self.progress.message(text)


RunBatch = Callable[[Session, Job, Sequence[int]], Iterable[Mapping[str, Any]]]
Summarise = Callable[[Session, Job, Sequence[dict]], Mapping[str, Any]]


def run_job(
  session: Session,
  job: Job,
  *,
  run_batch: RunBatch,
  summarise: Summarise,
  batch: int,
) -> dict[str, Any]:
  """Computes the missing samples of a job, then its result line.

  Args:
    session: the evaluation.
    job: what to measure.
    run_batch: computes samples by number and returns their prediction lines,
      without the key.
    summarise: makes the result line of all prediction lines, without the key.
    batch: samples per call of `run_batch`.
  """
  if session.progress is not None:
    session.progress.begin(job.name)
  settings = session.settings
  ways = {"memory": str(settings.memory), "prefill": str(settings.prefill)}
  for numbers in batched(session.pending(job), batch):
    for row in run_batch(session, job, numbers):
      session.results.add_prediction({**job.key, **ways, **row})
    session.advance(0, samples=len(numbers))
  done = session.results.finished(job.key)
  rows = [done[i] for i in range(job.num_samples)]
  result = {**job.key, **summarise(session, job, rows)}
  session.results.add_result(result)
  return result


def batched(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
  """Consecutive groups of at most `size`."""
  for start in range(0, len(items), size):
    yield items[start : start + size]


def footprint() -> Footprint:
  """Memory of the process and of the devices."""
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes
  held = sum(array.nbytes for array in jax.live_arrays())
  return Footprint(peak * unit, held)


class TokenCounter:
  """Counts tokens per row as they are read, and tells the session's progress.

  Attributes:
    tokens: read so far; fewer than a context has where one was taken up.
    seconds: from the beginning to the last tokens so far.
  """

  def __init__(self, session: Session, rows: int) -> None:
    self.tokens, self.seconds = 0, 0.0
    self._begin = time.perf_counter()
    self._session, self._rows = session, rows

  def __call__(self, tokens: int) -> None:
    self.tokens += tokens
    self.seconds = time.perf_counter() - self._begin
    self._session.advance(tokens * self._rows)


class Clock:
  """Seconds since it was made or last asked."""

  def __init__(self) -> None:
    self._last = time.perf_counter()

  def lap(self) -> float:
    now = time.perf_counter()
    elapsed, self._last = now - self._last, now
    return elapsed
