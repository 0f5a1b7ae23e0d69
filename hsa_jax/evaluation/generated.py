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

import jax
import numpy as np
from jaxtyping import Int

from hsa_jax.data.sample import Prompt
from hsa_jax.evaluation import scores
from hsa_jax.evaluation.cost import Cost, cost_fields, summarise_cost
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
  tail_length,
)
from hsa_jax.memory import ChunkMemory, RecordingMemory
from hsa_jax.types import Selection

Score = Callable[[Prompt, str], Mapping[str, Any]]
Summarise = Callable[[Sequence[dict]], Mapping[str, Any]]


class Reply(NamedTuple):
  """What a model wrote after one prompt.

  Attributes:
    tokens: without the eos.
    ended: whether an eos stopped it, and not the room for the answer.
    recalled: of the distinct chunks with evidence, how many were selected for
      any token of the answer, in any group or head; None without memory.
  """

  tokens: Int[np.ndarray, " n"]
  ended: bool
  recalled: int | None


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
    replies, cost = run_batch(session, alike, memory, journal)
    for number, prompt, reply in zip(some, alike, replies, strict=True):
      line = _line(session, prompt, reply)
      share = cost_fields(cost, len(alike), answer="decode_s")
      yield {"sample": number, **line, **share}


def run_batch(
  session: Session,
  prompts: Sequence[Prompt],
  memory: ChunkMemory,
  journal: Journal | None,
) -> tuple[list[Reply], Cost]:
  """Reads equally long prompts and continues them.

  Args:
    session: model and settings.
    prompts: at most `settings.batch`, of one length.
    memory: with room for prompts and answers, from `Room.taken_up`.
    journal: of that memory.
  """

  def source(start: int, stop: int) -> np.ndarray:
    return np.stack([prompt.segment(start, stop) for prompt in prompts])

  recorder = RecordingMemory(memory)
  count, clock = TokenCounter(session, len(prompts)), Clock()
  decoder = prefill_decoder(
    session.prefill,
    source,
    recorder,
    length=prompts[0].length,
    advance=count,
    journal=journal,
  )
  prefill_s = clock.lap()
  device_bytes = footprint().device_bytes
  rows = _decode(session, decoder, prompts)
  cost = Cost(
    prefill_s, clock.lap(), count.tokens, recorder.nbytes(), device_bytes
  )
  eos, chunk = session.tokenizer.eos_id, session.prefill.chunk_size
  asked = _asking(recorder.selections, session, prompts[0].length)
  replies = []
  for row, (prompt, tokens) in enumerate(zip(prompts, rows, strict=True)):
    ends = np.flatnonzero(tokens == eos)
    tokens = tokens[: ends[0]] if len(ends) else tokens
    found = recalled_evidence(asked, row, _evidence(prompt, chunk))
    replies.append(Reply(tokens, len(ends) > 0, found))
  return replies, cost


def recalled_evidence(
  selections: Sequence[Selection], row: int, chunks: Sequence[int]
) -> int | None:
  """How many of `chunks` any of the selections holds; None without any."""
  if not selections:
    return None
  found: set[int] = set()
  for selection in selections:
    index = np.asarray(selection.index)[row]
    found |= set(index[np.asarray(selection.valid)[row]].tolist())
  return len(found & set(chunks))


def summarise_generated(rows: Sequence[dict]) -> dict[str, Any]:
  """What a result line says beside the score: retrieval, speed, memory."""
  found = [row["recalled_evidence"] for row in rows]
  has_memory = all(count is not None for count in found)
  evidence = sum(row["evidence_chunks"] for row in rows)
  return {
    "recall_at_k": scores.share(sum(found), evidence) if has_memory else None,
    "ended_fraction": float(np.mean([row["ended"] for row in rows])),
    "unique_fraction": float(np.mean([r["unique_fraction"] for r in rows])),
    **summarise_cost(rows, answer="decode_s"),
  }


def _decode(
  session: Session, decoder: Decoder, prompts: Sequence[Prompt]
) -> list[Int[np.ndarray, " n"]]:
  """Tokens of each row, as many as it has room for; nothing is cut off yet."""
  tokens = generate(
    decoder,
    max_tokens=max(prompt.max_new_tokens for prompt in prompts),
    stop_token=session.tokenizer.eos_id,
    vocab_size=session.tokenizer.vocab_size,
    num_rows=len(prompts),
  )
  columns = np.stack(list(tokens), axis=1)
  return [
    row[: prompt.max_new_tokens]
    for row, prompt in zip(columns, prompts, strict=False)
  ]


def _asking(
  selections: Sequence[Selection], session: Session, length: int
) -> list[Selection]:
  """Of all selections, those that tokens of the answer came from.

  The suffix of the prompt retrieves for its last token, the steps after it for
  the token they read.
  """
  model = session.model
  groups = session.cfg.model.hsa.num_groups
  stride = session.cfg.model.hsa.tokens_per_retrieval
  first = length - tail_length(model, 1, length)
  last = (length - 1 - first) // stride
  suffix = [
    jax.tree.map(lambda x: x[:, last : last + 1], selection)
    for selection in selections[:groups]
  ]
  return [*suffix, *selections[groups:]]


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
    "unique_fraction": prompt.unique_fraction,
    "recipe": prompt.describe(),
  }
