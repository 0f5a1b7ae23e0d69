"""Suite `effective_remembrance`: how far back a prediction still reaches.

    EffRem_T(t) = TV(q(. | x_0:T), q(. | x_t:T))

is the total variation, in [0, 1], between the next-token distribution behind a
context of T tokens and the one behind its end alone: 0 if what lies before
token t has no say, 1 if it decides everything. A model that sees a window only
has 0 wherever the rest is as long as its receptive field. The measure is the
one of arXiv 2507.02782.

It is averaged over stretches of held-out text and over a few ends of each. The
grid of t is logarithmic in the tokens that are kept, T - t: that resolves the
reach of windows and of the memory alike, and all points together cost little
more than a few readings of the whole context. Kept ends begin where a chunk
does, so that both contexts are cut into the same chunks.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from hsa_jax.data.rng import EVAL, make_rng
from hsa_jax.evaluation import scores
from hsa_jax.evaluation.cost import Cost, cost_fields, summarise_cost
from hsa_jax.evaluation.lengths import FlagError, format_length
from hsa_jax.evaluation.perplexity import ring
from hsa_jax.evaluation.room import Room
from hsa_jax.evaluation.session import (
  Clock,
  Job,
  Session,
  TokenCounter,
  batched,
  footprint,
  run_job,
)
from hsa_jax.evaluation.suite import Asked, make_job
from hsa_jax.inference import prefill_decoder, receptive_field
from hsa_jax.memory import MemoryBytes

NAME = "effective_remembrance"
PROTOCOL = "total-variation-v1"
NUM_POINTS = 32  # of the grid, at most
NUM_ENDS = 4  # per stretch of text
_BETWEEN_ENDS = 97  # tokens: no multiple of a chunk size in use


class Point(NamedTuple):
  """One t of the curve of a result line, with the band over samples."""

  t: int
  kept: int
  mean: float
  ci_low: float
  ci_high: float


class RemembranceSuite:
  """One job per length; a sample is a stretch of text with a few ends."""

  name = NAME
  summary = "how much of a prediction hangs on what lies t tokens back"
  tasks = ()

  def check(self, asked: Asked) -> None:
    """Raises `FlagError` for contexts that the held-out text cannot fill."""
    most = asked.store.num_tokens("test") - NUM_ENDS * _BETWEEN_ENDS
    long = [n for n in asked.settings.lengths if not 2 <= n <= most]
    if long:
      names = ", ".join(map(format_length, long))
      raise FlagError(
        [
          f"--lengths: {names}: {NAME} takes 2 to {most:,} tokens of held-out"
          " text, so that no context meets its own end again"
        ]
      )

  def jobs(self, asked: Asked) -> list[Job]:
    settings = asked.settings
    return [
      make_job(NAME, PROTOCOL, NAME, length, settings)
      for length in settings.lengths
    ]

  def run(self, session: Session, job: Job) -> dict[str, Any]:
    with Room(session, job.length) as room:

      def run_batch(
        session: Session, job: Job, numbers: Sequence[int]
      ) -> Iterator[dict[str, Any]]:
        for number in numbers:
          yield {"sample": number, **measure(session, room, job, number)}

      return run_job(
        session, job, run_batch=run_batch, summarise=summarise, batch=1
      )

  def describe(self, result: dict[str, Any]) -> str:
    reach = result["reach"]
    small = "never" if reach is None else f"once {reach:,} tokens are kept"
    return (
      f"{NAME} {format_length(result['length'])}: {result['score']:.3f}"
      f" [{result['ci_low']:.3f}, {result['ci_high']:.3f}] at half the context,"
      f" below 0.01 {small}"
    )


SUITE = RemembranceSuite()


def kept_lengths(length: int, chunk_size: int) -> list[int]:
  """Tokens kept at each point of the grid, ascending, all below `length`.

  Args:
    length: T.
    chunk_size: S; from S kept tokens on, T - kept is a multiple of it.
  """
  grid = np.unique(np.geomspace(1, length, NUM_POINTS).round().astype(int))
  kept = set()
  for count in grid.tolist():
    if count >= chunk_size:
      count += (length - count) % chunk_size
    kept.add(count)
  return sorted(count for count in kept if count < length)


def measure(
  session: Session, room: Room, job: Job, number: int
) -> dict[str, Any]:
  """The curve of one sample: `[kept, total variation]`, and what it cost."""
  ends, length = ends_of(session, job, number), job.length
  grid = kept_lengths(length, session.prefill.chunk_size)
  # The progress counts on one reading of the context for each sample.
  todo = sum(_tokens(session, kept) for kept in (*grid, length)) * len(ends)
  session.skip(_tokens(session, length) - todo)
  clock, parts = Clock(), []

  def distributions(kept: int) -> Float[np.ndarray, "E V"]:
    for some in batched(ends, session.settings.batch):
      parts.append(next_token(session, room, some, kept))
    first = -(-len(ends) // session.settings.batch)
    return np.concatenate([part.share for part in parts[-first:]])

  whole = distributions(length)
  curve = [[kept, total_variation(whole, distributions(kept))] for kept in grid]
  read = sum(part.tokens for part in parts)
  device = max(part.device_bytes for part in parts)
  cost = Cost(clock.lap(), 0.0, read, parts[0].memory, device)
  return {
    "curve": curve,
    "ends": [end % session.store.num_tokens("test") for end in ends],
    **cost_fields(cost, 1, answer="suffix_s"),
  }


def _tokens(session: Session, kept: int) -> int:
  """About how many tokens of a context are read."""
  field = receptive_field(session.cfg.model)
  return kept if field is None else min(kept, field)


def ends_of(session: Session, job: Job, number: int) -> list[int]:
  """Where the contexts of a sample end in the split, read as a ring.

  Stratified over the split, and the same at every length.
  """
  rng = make_rng(session.settings.seed, f"{EVAL}/{NAME}", number)
  share = (number + rng.random()) / job.num_samples
  first = int(share * len(session.store.split("test")))
  return [first + _BETWEEN_ENDS * i for i in range(NUM_ENDS)]


class Prediction(NamedTuple):
  """What follows some contexts, and what finding it out took.

  Attributes:
    share: distribution of the next token.
    tokens: read, of all contexts together.
    memory: bytes of the chunks.
    device_bytes: arrays on the devices after the contexts were read.
  """

  share: Float[np.ndarray, "b V"]
  tokens: int
  memory: MemoryBytes
  device_bytes: int


def next_token(
  session: Session, room: Room, ends: Sequence[int], kept: int
) -> Prediction:
  """What follows the `kept` tokens before each of some places of the split.

  Args:
    session: the evaluation.
    room: for the chunks of the longest context; emptied first.
    ends: at most `settings.batch` places.
    kept: tokens that are read, at least 1.
  """
  tokens = session.store.split("test")

  def source(start: int, stop: int) -> np.ndarray:
    rows = [ring(tokens, end - kept + start, stop - start) for end in ends]
    return np.stack(rows)

  count = TokenCounter(session, len(ends))
  decoder = prefill_decoder(
    session.prefill, source, room.emptied(), length=kept, advance=count
  )
  return Prediction(
    np.asarray(_softmax(decoder.logits))[: len(ends)],
    count.tokens * len(ends),
    decoder.memory.nbytes(),
    footprint().device_bytes,
  )


@jax.jit
def _softmax(logits: Float[Array, "B V"]) -> Float[Array, "B V"]:
  return jax.nn.softmax(logits, axis=-1)


def total_variation(
  left: Float[np.ndarray, "E V"], right: Float[np.ndarray, "E V"]
) -> float:
  """Half the L1 distance of distributions, averaged over the rows."""
  away = np.abs(left.astype(np.float64) - right).sum(axis=-1) / 2
  return float(away.mean())


def summarise(
  session: Session, job: Job, rows: Sequence[dict]
) -> dict[str, Any]:
  """The result line of all samples.

  `curve` has a `Point` for each t. `score` is the mean at the t nearest to half
  the context. `reach` is the number of tokens kept from which on the mean stays
  below 0.01, null if it never does.
  """
  table = np.array([[value for _, value in row["curve"]] for row in rows])
  kept = [count for count, _ in rows[0]["curve"]]
  points = [
    Point(
      job.length - count,
      count,
      float(column.mean()),
      *scores.bootstrap_ratio(
        column, np.ones(len(column)), seed=session.settings.seed
      ),
    )
    for count, column in zip(kept, table.T, strict=True)
  ]
  half = min(points, key=lambda point: abs(point.t - job.length / 2))
  return {
    "score": half.mean,
    "ci_low": half.ci_low,
    "ci_high": half.ci_high,
    "metric": "total_variation",
    "reach": reach_of(points),
    "curve": [point._asdict() for point in points],
    **summarise_cost(rows, answer="suffix_s"),
  }


def reach_of(points: Sequence[Point], *, below: float = 0.01) -> int | None:
  """Fewest tokens kept from which on every mean is small; None without."""
  reach = None
  for point in reversed(points):
    if point.mean >= below:
      break
    reach = point.kept
  return reach
