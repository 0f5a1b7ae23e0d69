"""The generating engine: read a prompt of any length, then decode greedily.

Prompts are streamed into a chunk memory with room for what follows. The most
likely of the tokenizer's ids is taken at each step; a row ends at eos or at its
own `max_new_tokens`, and the text before the eos is the prediction. How good
that is, the suite says: it adds its own scores to each line.

A suite makes its prompts and calls `run_generated_job`.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from hsa_jax.data.sample import NOWHERE, Prompt
from hsa_jax.evaluation import scores
from hsa_jax.evaluation.cost import Cost, cost_fields, summarise_cost
from hsa_jax.evaluation.diagnostics import (
  detail_of,
  explain,
  summarise_diagnostics,
)
from hsa_jax.evaluation.retrieval import Follower, Trace, cut, follow
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
  Decoder,
  Journal,
  generate,
  prefill_decoder,
)
from hsa_jax.memory import ChunkMemory, RecordingMemory

Score = Callable[[Prompt, str], Mapping[str, Any]]
Summarise = Callable[[Sequence[dict]], Mapping[str, Any]]


class Reply(NamedTuple):
  """What a model wrote after one prompt.

  Attributes:
    tokens: without the eos.
    ended: whether an eos stopped it, and not the room for the answer.
    recalled: of the distinct chunks with evidence, how many were selected for
      any token of the answer, in any group or head; None without memory.
    details: more fields of the prediction line, with `--diagnostics=full`.
  """

  tokens: Int[np.ndarray, " n"]
  ended: bool
  recalled: int | None
  details: dict[str, Any]


def run_generated_job(
  session: Session,
  job: Job,
  make: Callable[[int], Prompt],
  *,
  score: Score,
  summarise: Summarise,
) -> dict[str, Any]:
  """Measures one job; returns its result line.

  Args:
    session: the evaluation.
    job: what to measure.
    make: the prompt of a number; with room for its answer it has at most
      `job.length` tokens.
    score: fields of the prediction line, of a prompt and the text that
      followed: `correct` (0 or 1) or `score` (a share) among them.
    summarise: fields of the result line, of all prediction lines: `score`,
      `ci_low`, `ci_high`, `metric` among them.
  """
  with Room(session, job.length) as room:

    def run_batch(
      session: Session, job: Job, numbers: Sequence[int]
    ) -> Iterator[dict[str, Any]]:
      prompts = [make(number) for number in numbers]
      rows = run_generated(session, job, room, numbers, prompts)
      for prompt, row in zip(prompts, rows, strict=True):
        yield {**row, **score(prompt, row["prediction"])}

    return run_job(
      session,
      job,
      run_batch=run_batch,
      summarise=lambda session, job, rows: {
        **summarise_generated(rows),
        **summarise(rows),
      },
      batch=session.settings.batch,
    )


def run_generated(
  session: Session,
  job: Job,
  room: Room,
  numbers: Sequence[int],
  prompts: Sequence[Prompt],
) -> Iterator[dict[str, Any]]:
  """Prediction lines without scores, in the order of the prompts.

  Neighbours of equal length are read and continued side by side; where lengths
  differ, one after the other.

  Args:
    session: the evaluation.
    job: what they belong to.
    room: for the chunks of `job.length` tokens.
    numbers: which samples, at most `settings.batch`.
    prompts: one for each number.

  Raises:
    ValueError: for a prompt whose answer has no room.
  """
  for prompt in prompts:
    if prompt.length + prompt.max_new_tokens > job.length:
      raise ValueError(
        f"{job.name}: a prompt of {prompt.length} tokens leaves no room for"
        f" {prompt.max_new_tokens} more in {job.length}"
      )
  pairs = zip(numbers, prompts, strict=True)
  for _, group in itertools.groupby(pairs, key=lambda pair: pair[1].length):
    some, alike = zip(*group, strict=True)
    memory, journal = room.taken_up(job, some)
    replies, cost = run_batch(session, some, alike, memory, journal)
    for number, prompt, reply in zip(some, alike, replies, strict=True):
      line = _line(session, prompt, reply)
      share = cost_fields(cost, len(alike), answer="decode_s")
      yield {"sample": number, **line, **share}


def run_batch(
  session: Session,
  numbers: Sequence[int],
  prompts: Sequence[Prompt],
  memory: ChunkMemory,
  journal: Journal | None,
) -> tuple[list[Reply], Cost]:
  """Reads equally long prompts and continues them.

  Args:
    session: model and settings.
    numbers: which samples.
    prompts: at most `settings.batch`, of one length.
    memory: with room for prompts and answers, from `Room.taken_up`.
    journal: of that memory.
  """
  length, most = prompts[0].length, max(p.max_new_tokens for p in prompts)
  recorder = RecordingMemory(memory, detail_of(session.settings))
  asking = np.arange(length - 1, length - 1 + most)
  follower = follow(session, recorder, [asking] * len(prompts))

  def source(start: int, stop: int) -> np.ndarray:
    return np.stack([prompt.segment(start, stop) for prompt in prompts])

  count, clock = TokenCounter(session, len(prompts)), Clock()
  decoder = prefill_decoder(
    session.prefill,
    source,
    recorder,
    length=length,
    advance=count,
    journal=journal,
    room=most,
    passed=lambda start, stop, reuse: follower.take(start, stop, reuse=reuse),
  )
  device_bytes = footprint().device_bytes
  columns = _decode(session, decoder, follower, len(prompts), most)
  cost = Cost(
    count.seconds,
    max(clock.lap() - count.seconds, 0.0),
    count.tokens,
    recorder.nbytes(),
    device_bytes,
  )
  eos = session.tokenizer.eos_id
  rows = [
    _until(row[: prompt.max_new_tokens], eos)
    for row, prompt in zip(columns, prompts, strict=True)
  ]
  traces = [
    [cut(trace, len(row)) for trace in groups]
    for row, groups in zip(rows, follower.traces(), strict=True)
  ]
  return _replies(session, recorder, numbers, prompts, rows, traces), cost


def _decode(
  session: Session,
  decoder: Decoder,
  follower: Follower,
  rows: int,
  most: int,
) -> Int[np.ndarray, "b n"]:
  """Greedy tokens until every row has ended; a row repeats its eos."""
  columns, model = [], session.model
  for tokens in generate(
    decoder,
    max_tokens=most,
    stop_token=session.tokenizer.eos_id,
    vocab_size=session.tokenizer.vocab_size,
    num_rows=rows,
  ):
    if columns:  # The token before has been read by now.
      last = decoder.position - 1
      reuse = model.num_reused(last, 1)
      follower.take(last, last + 1, reuse=reuse)
    columns.append(tokens[:rows])
  return np.stack(columns, axis=1)


def _until(row: Int[np.ndarray, " n"], eos: int) -> Int[np.ndarray, " m"]:
  """The tokens up to the first eos, which is the last of them."""
  ends = np.flatnonzero(row == eos)
  return row[: ends[0] + 1] if len(ends) else row


def _replies(
  session: Session,
  recorder: RecordingMemory,
  numbers: Sequence[int],
  prompts: Sequence[Prompt],
  rows: Sequence[Int[np.ndarray, " n"]],
  traces: Sequence[Sequence[Trace]],
) -> list[Reply]:
  """What was written, and what it was written from."""
  tokenizer, chunk = session.tokenizer, session.prefill.chunk_size
  evidence = [_evidence(prompt, chunk) for prompt in prompts]
  golds = [
    np.tile(chunks or [NOWHERE], (len(row), 1))
    for chunks, row in zip(evidence, rows, strict=True)
  ]
  words = [[tokenizer.decode([token]) for token in row] for row in rows]
  details = explain(session, recorder, numbers, traces, golds, words)
  return [
    Reply(
      row[:-1] if row[-1] == tokenizer.eos_id else row,
      bool(row[-1] == tokenizer.eos_id),
      recalled_evidence(groups, chunks),
      more,
    )
    for row, groups, chunks, more in zip(
      rows, traces, evidence, details, strict=True
    )
  ]


def recalled_evidence(
  groups: Sequence[Trace], chunks: Sequence[int]
) -> int | None:
  """How many of `chunks` were selected for any token, in any group or head.

  None for a model without memory.
  """
  if not groups:
    return None
  found: set[int] = set()
  for trace in groups:
    found |= set(trace.index[trace.valid].tolist())
  return len(found & set(chunks))


def summarise_generated(rows: Sequence[dict]) -> dict[str, Any]:
  """What a result line says beside the score: retrieval, speed, memory.

  `recall_at_k` is the share of evidence chunks that were selected at all;
  `p_correct_given_recalled` the mean score of the samples of which all were.
  """
  has_memory = all(row["recalled_evidence"] is not None for row in rows)
  evidence = sum(row["evidence_chunks"] for row in rows)
  found = sum(row["recalled_evidence"] or 0 for row in rows)
  whole = [
    row.get("score", row.get("correct", 0))
    for row in rows
    if row["evidence_chunks"]
    and row["recalled_evidence"] == row["evidence_chunks"]
  ]
  return {
    "recall_at_k": scores.share(found, evidence) if has_memory else None,
    "p_correct_given_recalled": float(np.mean(whole)) if whole else None,
    "ended_fraction": float(np.mean([row["ended"] for row in rows])),
    "unique_fraction": float(np.mean([r["unique_fraction"] for r in rows])),
    **summarise_diagnostics(rows),
    **summarise_cost(rows, answer="decode_s"),
  }


def _evidence(prompt: Prompt, chunk_size: int) -> list[int]:
  """Distinct complete chunks that hold evidence, at the end of the prompt."""
  complete = prompt.length // chunk_size
  chunks = {token // chunk_size for token in prompt.evidence}
  return sorted(chunk for chunk in chunks if chunk < complete)


def _line(session: Session, prompt: Prompt, reply: Reply) -> dict[str, Any]:
  """What is remembered of a sample, apart from its cost and scores."""
  chunks = _evidence(prompt, session.prefill.chunk_size)
  return {
    "depth": prompt.depth,
    "references": list(prompt.references),
    "prediction": session.tokenizer.decode(reply.tokens),
    "prediction_ids": reply.tokens.tolist(),
    "ended": reply.ended,
    "prompt_tokens": prompt.length,
    "new_tokens": len(reply.tokens) + reply.ended,
    "evidence_chunks": len(chunks),
    "recalled_evidence": reply.recalled,
    **reply.details,
    "unique_fraction": prompt.unique_fraction,
    "recipe": prompt.describe(),
  }
