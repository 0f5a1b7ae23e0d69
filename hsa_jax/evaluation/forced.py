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

import numpy as np
from jaxtyping import Bool, Int

from hsa_jax.data.sample import NOWHERE, Answer, ForcedSample
from hsa_jax.data.tokenizer import Tokenizer
from hsa_jax.evaluation import scores
from hsa_jax.evaluation.cost import Cost, cost_fields, summarise_cost
from hsa_jax.evaluation.lengths import format_length
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
  suffix_logits,
  tail_length,
)
from hsa_jax.memory import ChunkMemory, RecordingMemory
from hsa_jax.types import Selection

# Outputs are computed in whole blocks, so that answers of a few tokens more or
# less share one compiled upper decoder.
_LOGITS_BLOCK = 16


class Outcome(NamedTuple):
  """What a model made of one sample.

  Attributes:
    predicted: the most likely token at each answer position.
    recalled: whether the gold chunk was selected there; None without memory.
  """

  predicted: Int[np.ndarray, " n"]
  recalled: Bool[np.ndarray, " n"] | None


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
  outcomes, cost = run_batch(session, samples, memory, journal)
  for number, sample, outcome in zip(numbers, samples, outcomes, strict=True):
    line = _line(session.tokenizer, sample, outcome)
    share = cost_fields(cost, len(samples), answer="suffix_s")
    yield {"sample": number, **line, **share}


def run_batch(
  session: Session,
  samples: Sequence[ForcedSample],
  memory: ChunkMemory,
  journal: Journal | None,
) -> tuple[list[Outcome], Cost]:
  """Streams equally long samples through the model.

  Args:
    session: model and settings.
    samples: at most `settings.batch`, of one length.
    memory: with room for the chunks, from `Room.taken_up`.
    journal: of that memory.
  """
  model, prefill, length = session.model, session.prefill, samples[0].length
  answers = [sample.answer for sample in samples]
  outputs = length - min(int(a.positions[0]) for a in answers) + 1
  outputs = -(-outputs // _LOGITS_BLOCK) * _LOGITS_BLOCK
  keep = tail_length(model, outputs, length)

  def source(start: int, stop: int) -> np.ndarray:
    return np.stack([sample.segment(start, stop) for sample in samples])

  recorder = RecordingMemory(memory)
  count, clock = TokenCounter(session, len(samples)), Clock()
  suffix, _ = read_context(
    prefill,
    source,
    recorder,
    length=length,
    keep=keep,
    advance=count,
    journal=journal,
  )
  prefill_s = clock.lap()
  device_bytes = footprint().device_bytes
  logits = suffix_logits(model, suffix, recorder, num_logits=outputs)
  best = np.argmax(np.asarray(logits), axis=-1)
  cost = Cost(
    prefill_s, clock.lap(), count.tokens, recorder.nbytes(), device_bytes
  )
  offset = length - best.shape[1]
  outcomes = [
    Outcome(
      best[row, answer.positions - 1 - offset],
      recalled_chunks(
        recorder.selections,
        row=row,
        queries=_retrieval_rows(answer, suffix.position, model.cfg.hsa),
        chunks=gold_chunks(answer, prefill.chunk_size),
      ),
    )
    for row, answer in enumerate(answers)
  ]
  return outcomes, cost


def gold_chunks(answer: Answer, chunk_size: int) -> Int[np.ndarray, " n"]:
  """Chunk of the source of each answer token; `NOWHERE` stays."""
  return np.where(
    answer.sources == NOWHERE, NOWHERE, answer.sources // chunk_size
  )


def recalled_chunks(
  selections: Sequence[Selection],
  *,
  row: int,
  queries: Int[np.ndarray, " n"],
  chunks: Int[np.ndarray, " n"],
) -> Bool[np.ndarray, " n"] | None:
  """Whether any group or head selected `chunks[j]` for query `queries[j]`.

  Args:
    selections: one per upper group; none for a model without memory.
    row: of the batch.
    queries: index of each query along the selections' token axis.
    chunks: gold chunk ids.
  """
  if not selections:
    return None
  found = np.zeros(len(chunks), bool)
  for selection in selections:
    index = np.asarray(selection.index)[row, queries]
    valid = np.asarray(selection.valid)[row, queries]
    hit = (index == chunks[:, None, None]) & valid
    found |= hit.any(axis=(1, 2))
  return found


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


def _retrieval_rows(
  answer: Answer, position: int, hsa: Any
) -> Int[np.ndarray, " n"]:
  """Row of the selections of the token before each answer token.

  With several tokens per retrieval, only the first of a block has a row.
  """
  return (answer.positions - 1 - position) // hsa.tokens_per_retrieval


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
