"""The teacher-forced engine: one streamed pass, argmax at the answer tokens.

A sample ends with its answer and eos. The pass gives the logits of the answer
positions; a sample is correct iff the largest is right at every answer token,
eos excluded. With the gold answer fed back this is the same event as greedy
decoding producing the answer. Retrieval is diagnosed from the chunks selected
at these positions: recall@K is the share of answer tokens whose gold chunk was
among them in any group or head.

A suite makes its samples and calls `run_forced_job`.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from hsa_jax.data.sample import NOWHERE, Answer, ForcedSample
from hsa_jax.data.tokenizer import Tokenizer
from hsa_jax.evaluation import scores
from hsa_jax.evaluation.cost import Cost, cost_fields, summarise_cost
from hsa_jax.evaluation.diagnostics import (
  detail_of,
  explain,
  hits,
  summarise_diagnostics,
)
from hsa_jax.evaluation.lengths import format_length
from hsa_jax.evaluation.retrieval import Trace, follow
from hsa_jax.evaluation.room import Room
from hsa_jax.evaluation.session import (
  Clock,
  Job,
  Session,
  TokenCounter,
  footprint,
  run_job,
)
from hsa_jax.inference import (
  Journal,
  read_context,
  read_sequence,
  tail_length,
)
from hsa_jax.inference.sequence import SequencePart
from hsa_jax.memory import ChunkMemory, RecordingMemory
from hsa_jax.models import LanguageModel

# Answers of a few tokens more or less share compiled programs.
_BLOCK = 16
_HEAD_TILE = 256  # outputs per call: bounds the logits
# With more outputs the upper decoder, too, is streamed.
MAX_SUFFIX = 4096


class Outcome(NamedTuple):
  """What a model made of one sample.

  Attributes:
    predicted: the most likely token at each answer position.
    recalled: whether the gold chunk was selected there; None without memory.
    details: more fields of the prediction line, with `--diagnostics=full`.
  """

  predicted: Int[np.ndarray, " n"]
  recalled: Bool[np.ndarray, " n"] | None
  details: dict[str, Any]


def run_forced_job(
  session: Session, job: Job, make: Callable[[int], ForcedSample]
) -> dict[str, Any]:
  """Measures one job; returns its result line.

  Args:
    session: the evaluation.
    job: what to measure.
    make: the sample of a number, `job.length` tokens long.
  """
  with Room(session, job.length) as room:

    def run_batch(
      session: Session, job: Job, numbers: Sequence[int]
    ) -> Iterator[dict[str, Any]]:
      samples = [make(number) for number in numbers]
      return run_forced(session, job, room, numbers, samples)

    return run_job(
      session,
      job,
      run_batch=run_batch,
      summarise=summarise_forced,
      batch=session.settings.batch,
    )


def run_forced(
  session: Session,
  job: Job,
  room: Room,
  numbers: Sequence[int],
  samples: Sequence[ForcedSample],
) -> Iterator[dict[str, Any]]:
  """Prediction lines of samples of one length, read side by side.

  Args:
    session: the evaluation.
    job: what they belong to.
    room: for the chunks of `job.length` tokens.
    numbers: which samples, at most `settings.batch`.
    samples: one for each number, `job.length` tokens long.

  Raises:
    ValueError: for a sample of another length.
  """
  for sample in samples:
    if sample.length != job.length:
      raise ValueError(
        f"{job.name}: a sample has {sample.length} tokens, not {job.length}"
      )
  memory, journal = room.taken_up(job, numbers)
  outcomes, cost = run_batch(session, numbers, samples, memory, journal)
  for number, sample, outcome in zip(numbers, samples, outcomes, strict=True):
    line = _line(session.tokenizer, sample, outcome)
    share = cost_fields(cost, len(samples), answer="suffix_s")
    yield {"sample": number, **line, **share}


def run_batch(
  session: Session,
  numbers: Sequence[int],
  samples: Sequence[ForcedSample],
  memory: ChunkMemory,
  journal: Journal | None,
) -> tuple[list[Outcome], Cost]:
  """Streams equally long samples through the model.

  Args:
    session: model and settings.
    numbers: which samples.
    samples: at most `settings.batch`, of one length.
    memory: with room for the chunks, from `Room.taken_up`.
    journal: of that memory.
  """
  answers = [sample.answer for sample in samples]
  recorder = RecordingMemory(memory, detail_of(session.settings))
  follower = follow(session, recorder, [a.positions - 1 for a in answers])
  count, clock = TokenCounter(session, len(samples)), Clock()
  parts = _read(session, samples, recorder, count, journal)
  predicted = [np.zeros_like(a.gold) for a in answers]
  device_bytes = 0
  for part in parts:
    device_bytes = max(device_bytes, footprint().device_bytes)
    _predict(session.model, part, answers, predicted)
    reuse = session.model.num_reused(part.start, part.hidden.shape[1])
    follower.take(part.start, part.stop, reuse=reuse)
  cost = Cost(
    count.seconds,
    max(clock.lap() - count.seconds, 0.0),
    count.tokens,
    recorder.nbytes(),
    device_bytes,
  )
  traces = follower.traces()
  golds = [gold_chunks(a, session.prefill.chunk_size)[:, None] for a in answers]
  words = [_words(session.tokenizer, answer) for answer in answers]
  details = explain(session, recorder, numbers, traces, golds, words)
  outcomes = [
    Outcome(best, recalled_chunks(groups, gold), more)
    for best, groups, gold, more in zip(
      predicted, traces, golds, details, strict=True
    )
  ]
  return outcomes, cost


def _read(
  session: Session,
  samples: Sequence[ForcedSample],
  recorder: RecordingMemory,
  count: TokenCounter,
  journal: Journal | None,
) -> Iterator[SequencePart]:
  """Outputs of the upper decoder that hold every answer position.

  Where answers are at the end only its exact suffix is run; where they lie far
  from it, or the model has none, every token, segment by segment.
  """
  model, length = session.model, samples[0].length

  def source(start: int, stop: int) -> np.ndarray:
    return np.stack([sample.segment(start, stop) for sample in samples])

  outputs = length - min(int(s.answer.positions[0]) for s in samples) + 1
  outputs = -(-outputs // _BLOCK) * _BLOCK
  if outputs > MAX_SUFFIX or model.suffix_length(outputs) is None:
    for part in read_sequence(session.prefill, source, recorder, length=length):
      count(part.stop - part.start)
      yield part
    return
  suffix, _ = read_context(
    session.prefill,
    source,
    recorder,
    length=length,
    keep=tail_length(model, outputs, length),
    advance=count,
    journal=journal,
  )
  hidden, _ = model.upper(
    jnp.asarray(suffix.hidden),
    recorder,
    model.init_upper_carry(suffix.hidden.shape[0]),
    position=suffix.position,
  )
  yield SequencePart(suffix.position, length, hidden)


def _predict(
  model: LanguageModel,
  part: SequencePart,
  answers: Sequence[Answer],
  predicted: Sequence[Int[np.ndarray, " n"]],
) -> None:
  """Fills in the tokens whose logits lie in a part."""
  asking = [answer.positions - 1 for answer in answers]
  here = [(part.start <= a) & (a < part.stop) for a in asking]
  rows = [a[h] - part.start for a, h in zip(asking, here, strict=True)]
  width = -(-max(map(len, rows)) // _BLOCK) * _BLOCK
  table = np.zeros((len(rows), width), np.int32)
  for line, row in zip(table, rows, strict=True):
    line[: len(row)] = row
  tiles = [
    np.asarray(_best(model, part.hidden, table[:, i : i + _HEAD_TILE]))
    for i in range(0, width, _HEAD_TILE)
  ]
  for sample, (into, where, row) in enumerate(
    zip(predicted, here, rows, strict=True)
  ):
    if len(row):
      into[where] = np.concatenate(tiles, axis=1)[sample, : len(row)]


@jax.jit
def _best(
  model: LanguageModel, hidden: Float[Array, "B T D"], rows: Int[Array, "b n"]
) -> Int[Array, "b n"]:
  """The most likely token after each of some outputs of the first `b` rows."""
  taken = jnp.take_along_axis(hidden[: rows.shape[0]], rows[..., None], axis=1)
  return jnp.argmax(model.head(taken), axis=-1).astype(jnp.int32)


def gold_chunks(answer: Answer, chunk_size: int) -> Int[np.ndarray, " n"]:
  """Chunk of the source of each answer token; `NOWHERE` stays."""
  return np.where(
    answer.sources == NOWHERE, NOWHERE, answer.sources // chunk_size
  )


def recalled_chunks(
  groups: Sequence[Trace], gold: Int[np.ndarray, "n 1"]
) -> Bool[np.ndarray, " n"] | None:
  """Whether any group or head selected the gold chunk of each answer token.

  None for a model without memory.
  """
  if not groups:
    return None
  found = np.stack([hits(trace, gold)[:, 0] for trace in groups])
  return np.asarray(found.any(axis=0))


def summarise_forced(
  session: Session, job: Job, rows: Sequence[dict]
) -> dict[str, Any]:
  """The result line of all prediction lines of a job, without its key.

  `score` is the share of samples with every answer token right, with its
  Wilson interval. Recall is over the answer tokens that have one source.
  """
  correct = sum(row["correct"] for row in rows)
  interval = scores.wilson(correct, len(rows))
  total = {
    name: sum(row[name] or 0 for row in rows)
    for name in (
      "answer_tokens",
      "correct_tokens",
      "recalled_tokens",
      "recalled_correct_tokens",
    )
  }
  has_memory = all(row["recalled_tokens"] is not None for row in rows)
  sourced = sum(row.get("sourced_tokens", row["answer_tokens"]) for row in rows)
  recalled = total["recalled_tokens"] if has_memory else 0
  return {
    "score": correct / len(rows),
    "ci_low": interval.low,
    "ci_high": interval.high,
    "metric": "exact_match",
    "num_correct": correct,
    "token_accuracy": total["correct_tokens"] / total["answer_tokens"],
    "recall_at_k": scores.share(recalled, sourced) if has_memory else None,
    "p_correct_given_recalled": scores.share(
      total["recalled_correct_tokens"], recalled
    ),
    "unique_fraction": float(np.mean([r["unique_fraction"] for r in rows])),
    **summarise_diagnostics(rows),
    **summarise_cost(rows, answer="suffix_s"),
  }


def describe_forced(result: dict[str, Any]) -> str:
  """A result of `summarise_forced` in one line for the terminal."""
  kind = f"{result['task']} {result['haystack']}".strip()
  text = (
    f"{kind} {format_length(result['length'])}:"
    f" {result['num_correct']}/{result['num_samples']} correct"
    f" [{result['ci_low']:.2f}, {result['ci_high']:.2f}]"
  )
  if result["recall_at_k"] is not None:
    text += f", recall@K {result['recall_at_k']:.2f}"
  return f"{text}, {result['tokens_per_s']:,.0f} tokens/s"


def _words(tokenizer: Tokenizer, answer: Answer) -> list[str]:
  return [tokenizer.decode([token]) for token in answer.gold]


def _line(
  tokenizer: Tokenizer, sample: ForcedSample, outcome: Outcome
) -> dict[str, Any]:
  """What is remembered of a sample, apart from its cost."""
  answer, decode = sample.answer, tokenizer.decode
  right = outcome.predicted == answer.gold
  return {
    "depth": sample.depth,
    "gold": decode(answer.gold),
    "prediction": decode(outcome.predicted),
    "gold_ids": answer.gold.tolist(),
    "prediction_ids": outcome.predicted.tolist(),
    "correct": scores.exact_match(outcome.predicted, answer.gold),
    "answer_tokens": len(answer.gold),
    "correct_tokens": int(right.sum()),
    **_recall_fields(answer, outcome.recalled, right),
    **outcome.details,
    "unique_fraction": sample.unique_fraction,
    "recipe": sample.describe(),
  }


def _recall_fields(
  answer: Answer,
  recalled: Bool[np.ndarray, " n"] | None,
  right: Bool[np.ndarray, " n"],
) -> dict[str, Any]:
  """Recall over the answer tokens that have a source; None without memory."""
  sourced = int((answer.sources != NOWHERE).sum())
  if recalled is None:
    names = ("recalled_tokens", "recalled_correct_tokens", "recall_at_k")
    return {"sourced_tokens": sourced, **dict.fromkeys(names)}
  found = int(recalled.sum())
  return {
    "sourced_tokens": sourced,
    "recalled_tokens": found,
    "recalled_correct_tokens": int((recalled & right).sum()),
    "recall_at_k": scores.share(found, sourced),
  }
