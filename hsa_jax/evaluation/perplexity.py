"""Suite `ppl`: how well held-out text is predicted, and what context adds.

Two protocols, of which `--tasks` may choose `by_position` or `by_length`:

  by_position   whole windows, every token a target; nats by position bucket
                [2^k, 2^(k+1)). In one forward pass up to 4K tokens, streamed
                segment by segment beyond: the same numbers
  last_N        the same N last tokens of a held-out stretch behind contexts of
                every length asked for: streamed, with the upper decoder on the
                exact suffix, so a million tokens of context are affordable

The split is read as a ring: a stretch that runs over its end goes on at its
start, that is in another document. A context that would meet its own targets
again is not measured.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from hsa_jax.data.rng import EVAL, make_rng
from hsa_jax.evaluation import scores
from hsa_jax.evaluation.lengths import format_length
from hsa_jax.evaluation.room import Room
from hsa_jax.evaluation.session import (
  Clock,
  Job,
  Session,
  Settings,
  TokenCounter,
  footprint,
  run_job,
)
from hsa_jax.evaluation.suite import Asked, chosen_tasks, make_job
from hsa_jax.inference import head, read_end, read_sequence
from hsa_jax.inference.stream import pad_tokens
from hsa_jax.memory import ChunkMemory
from hsa_jax.models import LanguageModel
from hsa_jax.ops.loss import cross_entropy

NAME = "ppl"
BY_POSITION, BY_LENGTH = "by_position", "by_length"
FULL_FORWARD = "full_forward"
FULL_SEQUENCE = "full_sequence"
MAX_FORWARD = 4096  # tokens in one pass; longer windows are streamed
MAX_TARGETS = 512


def num_targets(settings: Settings) -> int:
  """Last tokens that are predicted behind every length of context."""
  return max(1, min(MAX_TARGETS, min(settings.lengths) // 2))


class TextSuite:
  """One job by position, then one per context length that the split allows."""

  name = NAME
  summary = "perplexity of held-out text by position and by context length"
  tasks = (BY_POSITION, BY_LENGTH)

  def check(self, asked: Asked) -> None:
    """Every length is possible: what the split cannot hold is left out."""

  def jobs(self, asked: Asked) -> list[Job]:
    settings, split_length = asked.settings, asked.store.num_tokens("test")
    chosen = chosen_tasks(settings, self.tasks)
    jobs = []
    if BY_POSITION in chosen:
      window = min(max(settings.lengths), split_length // 2)
      whole = FULL_FORWARD if window <= MAX_FORWARD else FULL_SEQUENCE
      jobs.append(make_job(NAME, whole, BY_POSITION, window, settings))
    if BY_LENGTH in chosen:
      targets = num_targets(settings)
      task = f"last_{targets}"
      jobs += [
        make_job(NAME, task, task, length, settings)
        for length in settings.lengths
        if length <= split_length - targets
      ]
    return jobs

  def run(self, session: Session, job: Job) -> dict[str, Any]:
    batch = session.settings.batch
    with Room(session, job.length) as room:
      if job.protocol == FULL_FORWARD:
        step: Any = _run_windows
      elif job.protocol == FULL_SEQUENCE:
        step = functools.partial(_run_sequences, room)
      else:
        step = functools.partial(_run_contexts, room)
      return run_job(
        session, job, run_batch=step, summarise=summarise, batch=batch
      )

  def describe(self, result: dict[str, Any]) -> str:
    return (
      f"ppl {result['task']} {format_length(result['length'])}:"
      f" {result['score']:.4f} nats/token, perplexity"
      f" {result['perplexity']:.3f}, {result['bits_per_byte']:.4f} bits/byte"
      f" over {result['num_targets']:,} tokens"
    )


SUITE = TextSuite()


def summarise(
  session: Session, job: Job, rows: Sequence[dict]
) -> dict[str, Any]:
  """The result line of all windows of a job."""
  nats = np.array([row["nats"] for row in rows], np.float64)
  count = np.array([row["num_targets"] for row in rows], np.float64)
  mean = float(nats.sum() / count.sum())
  interval = scores.bootstrap_ratio(nats, count, seed=session.settings.seed)
  bits = 1 / (math.log(2) * session.store.bytes_per_token("test"))
  seconds = sum(row["seconds"] for row in rows)
  return {
    "score": mean,
    "ci_low": interval.low,
    "ci_high": interval.high,
    "metric": "nats_per_token",
    "perplexity": math.exp(mean),
    "bits_per_byte": mean * bits,
    "bits_per_byte_low": interval.low * bits,
    "bits_per_byte_high": interval.high * bits,
    "num_targets": int(count.sum()),
    "buckets": _join_buckets(rows),
    "tokens_per_s": sum(row["tokens_read"] for row in rows) / seconds,
    "peak_rss_bytes": max(row["peak_rss_bytes"] for row in rows),
    "device_bytes": max(row["device_bytes"] for row in rows),
    "host_bytes": max(row["host_bytes"] for row in rows),
    "disk_bytes": max(row["disk_bytes"] for row in rows),
  }


def position_buckets(
  nats: Float[np.ndarray, " T"],
) -> list[dict[str, float | int]]:
  """Sums over positions [2^k, 2^(k+1)); the first bucket also holds 0.

  Args:
    nats: loss of the token after each position, from position 0.

  Returns:
    One `{first, last, num_targets, nats}` per bucket, `last` inclusive.
  """
  buckets, low, high = [], 0, 2
  while low < len(nats):
    part = np.asarray(nats[low:high], np.float64)
    buckets.append(
      {
        "first": low,
        "last": low + len(part) - 1,
        "num_targets": len(part),
        "nats": float(part.sum()),
      }
    )
    low, high = high, 2 * high
  return buckets


def ring(tokens: np.ndarray, start: int, length: int) -> np.ndarray:
  """`length` tokens from `start`, going on at the beginning; int32."""
  where = np.arange(start, start + length) % len(tokens)
  return np.asarray(tokens[where], np.int32)


def _run_windows(
  session: Session, job: Job, numbers: Sequence[int]
) -> Iterator[dict[str, Any]]:
  """Full forward over windows; one more token than inputs for the targets."""
  tokens = session.store.split("test")
  starts = [_target_end(session, job, i) for i in numbers]
  rows = np.stack([ring(tokens, s, job.length + 1) for s in starts])
  clock = Clock()
  nats = np.asarray(_window_nats(session.model, rows))
  seconds = clock.lap() / len(rows)
  session.advance(job.length * len(rows))
  for number, row in zip(numbers, nats, strict=True):
    yield {
      "sample": number,
      "nats": float(np.sum(row, dtype=np.float64)),
      "num_targets": len(row),
      "buckets": position_buckets(row),
      "tokens_read": job.length,
      "seconds": seconds,
      "host_bytes": 0,
      "disk_bytes": 0,
      **footprint()._asdict(),
    }


def _run_sequences(
  room: Room, session: Session, job: Job, numbers: Sequence[int]
) -> Iterator[dict[str, Any]]:
  """The same windows at any length, at the device memory of a segment."""
  tokens, model = session.store.split("test"), session.model
  begins = [_target_end(session, job, i) for i in numbers]

  def source(start: int, stop: int) -> np.ndarray:
    return np.stack([ring(tokens, b + start, stop - start) for b in begins])

  memory = room.emptied()
  clock, parts = Clock(), []
  for part in read_sequence(session.prefill, source, memory, length=job.length):
    targets = source(part.start + 1, part.stop + 1)
    targets = pad_tokens(targets, *part.hidden.shape[:2])
    nats = np.asarray(_part_nats(model, part.hidden, targets))
    parts.append(nats[: len(begins), : part.stop - part.start])
    session.advance((part.stop - part.start) * len(begins))
  seconds = clock.lap() / len(begins)
  for number, row in zip(numbers, np.concatenate(parts, 1), strict=True):
    yield {
      "sample": number,
      "nats": float(np.sum(row, dtype=np.float64)),
      "num_targets": len(row),
      "buckets": position_buckets(row),
      "tokens_read": job.length,
      "seconds": seconds,
      **_bytes_fields(memory),
      **footprint()._asdict(),
    }


def _run_contexts(
  room: Room, session: Session, job: Job, numbers: Sequence[int]
) -> Iterator[dict[str, Any]]:
  """Streams contexts that end with the same targets at every length."""
  model, length = session.model, job.length
  tokens = session.store.split("test")
  begins = [_target_end(session, job, i) - length for i in numbers]
  outputs = num_targets(session.settings) + 1

  def source(start: int, stop: int) -> np.ndarray:
    return np.stack([ring(tokens, b + start, stop - start) for b in begins])

  memory, journal = room.taken_up(job, numbers)
  count, clock = TokenCounter(session, len(begins)), Clock()
  hidden, full = read_end(
    session.prefill,
    source,
    memory,
    length=length,
    num_outputs=outputs,
    advance=count,
    journal=journal,
  )
  logits = head(model, hidden)
  targets = source(length - outputs + 1, length)
  nats = np.asarray(_nats(logits[: len(begins), :-1], targets))
  seconds = clock.lap() / len(begins)
  for number, row in zip(numbers, nats, strict=True):
    yield {
      "sample": number,
      "nats": float(np.sum(row, dtype=np.float64)),
      "num_targets": len(row),
      "buckets": [],
      "tokens_read": count.tokens,
      "seconds": seconds,
      **_bytes_fields(full),
      **footprint()._asdict(),
    }


def _bytes_fields(memory: ChunkMemory) -> dict[str, int]:
  held = memory.nbytes()
  return {"host_bytes": held.host, "disk_bytes": held.disk}


def _target_end(session: Session, job: Job, sample: int) -> int:
  """Place of a sample in the split: stratified, the same at every length."""
  rng = make_rng(session.settings.seed, f"{EVAL}/{NAME}", sample)
  share = (sample + rng.random()) / job.num_samples
  return int(share * len(session.store.split("test")))


def _join_buckets(rows: Sequence[dict]) -> list[dict[str, Any]]:
  joined = []
  for parts in zip(*(row["buckets"] for row in rows), strict=True):
    count = sum(part["num_targets"] for part in parts)
    mean = sum(part["nats"] for part in parts) / count
    joined.append(
      {
        "first": parts[0]["first"],
        "last": parts[0]["last"],
        "num_targets": count,
        "nats_per_token": mean,
        "perplexity": math.exp(mean),
      }
    )
  return joined


@jax.jit
def _window_nats(
  model: LanguageModel, rows: Int[Array, "B T1"]
) -> Float[Array, "B T"]:
  return cross_entropy(model(rows[:, :-1]), rows[:, 1:])


@jax.jit
def _part_nats(
  model: LanguageModel, hidden: Float[Array, "B T D"], targets: Array
) -> Float[Array, "B T"]:
  return cross_entropy(model.head(hidden), targets)


_nats = jax.jit(cross_entropy)
