"""Suite `hsa_ruler`: needles in a haystack, token level, teacher forced.

A sample ends with the question, its answer and eos, at exactly the length asked
for. One streamed pass gives the logits of the answer positions; a sample is
correct iff the largest logit is right at every answer token, eos excluded.
Retrieval is diagnosed from the chunks selected at these positions: recall@K is
the share of answer tokens whose gold chunk was among them in any group or head.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from hsa_jax.config import Haystack, SourceConfig, Task
from hsa_jax.data import tasks
from hsa_jax.data.tokenizer import Tokenizer
from hsa_jax.evaluation import scores
from hsa_jax.evaluation.lengths import FlagError, format_length, samples_at
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
from hsa_jax.inference import (
  Journal,
  read_context,
  suffix_logits,
  tail_length,
)
from hsa_jax.memory import ChunkMemory, MemoryBytes, RecordingMemory
from hsa_jax.types import Selection

SUITE = "hsa_ruler"
PROTOCOL = "teacher_forced_exact_match"
TASKS = ("s_niah",)
# Outputs are computed in whole blocks, so that answers of a few tokens more or
# less share one compiled upper decoder.
_LOGITS_BLOCK = 16


class Answer(NamedTuple):
  """What a sample asks for.

  Attributes:
    positions: index in the sample of each answer token.
    gold: the answer tokens.
    sources: index of the needle token that each of them repeats.
  """

  positions: Int[np.ndarray, " n"]
  gold: Int[np.ndarray, " n"]
  sources: Int[np.ndarray, " n"]


class Outcome(NamedTuple):
  """What a model made of one sample.

  Attributes:
    predicted: the most likely token at each answer position.
    recalled: whether the gold chunk was selected there; None without memory.
  """

  predicted: Int[np.ndarray, " n"]
  recalled: Bool[np.ndarray, " n"] | None


class Cost(NamedTuple):
  """What a batch took: seconds, tokens per row really read, memory."""

  prefill_s: float
  suffix_s: float
  tokens_read: int
  memory: MemoryBytes
  device_bytes: int


def check_lengths(settings: Settings, tokenizer: Tokenizer) -> None:
  """Raises `FlagError` if a length is too short for one question."""
  source = _source(settings, settings.haystacks[0])
  need = tasks.min_length(source, tokenizer)
  short = [n for n in settings.lengths if n < need]
  if short:
    names = ", ".join(format_length(n) for n in short)
    raise FlagError(
      [
        f"--lengths: {names} too short; needle, question and answer take"
        f" {need} tokens with a {settings.needle} needle"
      ]
    )


def jobs(settings: Settings) -> list[Job]:
  """Every haystack at every length, short ones first."""
  return [
    Job(
      SUITE,
      PROTOCOL,
      "s_niah",
      str(haystack),
      str(settings.needle),
      length,
      samples_at(settings.samples, length),
    )
    for haystack in settings.haystacks
    for length in settings.lengths
  ]


def run(session: Session, job: Job) -> dict[str, Any]:
  """Measures one job; returns its result line."""
  with Room(session, job.length) as room:
    return run_job(
      session,
      job,
      run_batch=_Bench(session, job, room).run,
      summarise=summarise,
      batch=session.settings.batch,
    )


class _Bench:
  """One job's templates, haystacks, and the room its batches share."""

  def __init__(self, session: Session, job: Job, room: Room):
    self.source = _source(session.settings, Haystack(job.haystack))
    self.task = tasks.NiahTask(self.source, session.tokenizer)
    text = session.store.split("test")
    self.haystacks = tasks.make_haystacks(text, session.tokenizer)
    self.room = room

  def run(
    self, session: Session, job: Job, numbers: Sequence[int]
  ) -> Iterator[dict[str, Any]]:
    """Prediction lines of the samples `numbers`."""
    recipes = [
      tasks.evaluation_recipe(
        self.task,
        self.haystacks,
        self.source,
        seed=session.settings.seed,
        sample=number,
        num_samples=job.num_samples,
        length=job.length,
      )
      for number in numbers
    ]
    memory, journal = self.room.taken_up(job, numbers)
    outcomes, cost = run_batch(
      session, recipes, self.haystacks, memory, journal
    )
    for number, recipe, outcome in zip(numbers, recipes, outcomes, strict=True):
      line = _line(session, recipe, outcome, self.haystacks)
      yield {"sample": number, **line, **_cost_fields(cost, len(recipes))}


def run_batch(
  session: Session,
  recipes: Sequence[tasks.NiahRecipe],
  haystacks: tasks.Haystacks,
  memory: ChunkMemory,
  journal: Journal | None,
) -> tuple[list[Outcome], Cost]:
  """Streams equally long samples through the model.

  Args:
    session: model and settings.
    recipes: at most `settings.batch` samples of one length.
    haystacks: rings they are cut from.
    memory: with room for the chunks, from `Room.taken_up`.
    journal: of that memory.
  """
  model, prefill, length = session.model, session.prefill, recipes[0].length
  answers = [find_answer(recipe) for recipe in recipes]
  outputs = length - min(int(a.positions[0]) for a in answers) + 1
  outputs = -(-outputs // _LOGITS_BLOCK) * _LOGITS_BLOCK
  keep = tail_length(model, outputs, length)

  def source(start: int, stop: int) -> np.ndarray:
    rows = [tasks.segment(r, haystacks, start, stop) for r in recipes]
    return np.stack(rows)

  recorder = RecordingMemory(memory)
  count, clock = TokenCounter(session, len(recipes)), Clock()
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
        chunks=answer.sources // prefill.chunk_size,
      ),
    )
    for row, answer in enumerate(answers)
  ]
  return outcomes, cost


def find_answer(recipe: tasks.NiahRecipe) -> Answer:
  """Where the answers of a sample are, and what they repeat."""
  gold, sources = [], []
  for question in recipe.questions:
    needle = recipe.needles[question.needle]
    gold.append(needle.value)
    sources.append(needle.value_position + np.arange(len(needle.value)))
  return Answer(
    tasks.answer_positions(recipe),
    np.concatenate(gold),
    np.concatenate(sources),
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


def summarise(
  session: Session, job: Job, rows: Sequence[dict]
) -> dict[str, Any]:
  """The result line of all prediction lines of a job."""
  correct = sum(row["correct"] for row in rows)
  interval = scores.wilson(correct, len(rows))
  total = {
    name: sum(row[name] or 0 for row in rows)
    for name in (
      "answer_tokens",
      "correct_tokens",
      "recalled_tokens",
      "recalled_correct_tokens",
      "tokens_read",
      "prefill_s",
      "suffix_s",
    )
  }
  has_memory = all(row["recalled_tokens"] is not None for row in rows)
  recalled = total["recalled_tokens"] if has_memory else 0
  return {
    "score": correct / len(rows),
    "ci_low": interval.low,
    "ci_high": interval.high,
    "metric": "exact_match",
    "num_correct": correct,
    "token_accuracy": total["correct_tokens"] / total["answer_tokens"],
    "recall_at_k": recalled / total["answer_tokens"] if has_memory else None,
    "p_correct_given_recalled": scores.share(
      total["recalled_correct_tokens"], recalled
    ),
    "unique_fraction": float(np.mean([r["unique_fraction"] for r in rows])),
    "tokens_per_s": total["tokens_read"] / total["prefill_s"],
    "suffix_s_per_sample": total["suffix_s"] / len(rows),
    "peak_rss_bytes": max(row["peak_rss_bytes"] for row in rows),
    "device_bytes": max(row["device_bytes"] for row in rows),
    "host_bytes": max(row["host_bytes"] for row in rows),
    "disk_bytes": max(row["disk_bytes"] for row in rows),
  }


def describe(result: dict[str, Any]) -> str:
  """One line for the terminal."""
  kind = f"{result['task']} {result['haystack']}"
  text = (
    f"{kind} {format_length(result['length'])}:"
    f" {result['num_correct']}/{result['num_samples']} correct"
    f" [{result['ci_low']:.2f}, {result['ci_high']:.2f}]"
  )
  if result["recall_at_k"] is not None:
    text += f", recall@K {result['recall_at_k']:.2f}"
  return f"{text}, {result['tokens_per_s']:,.0f} tokens/s"


def _source(settings: Settings, haystack: Haystack) -> SourceConfig:
  return SourceConfig(task=Task.NIAH, haystack=haystack, needle=settings.needle)


def _retrieval_rows(
  answer: Answer, position: int, hsa: Any
) -> Int[np.ndarray, " n"]:
  """Row of the selections of the token before each answer token.

  With several tokens per retrieval, only the first of a block has a row.
  """
  return (answer.positions - 1 - position) // hsa.tokens_per_retrieval


def _line(
  session: Session,
  recipe: tasks.NiahRecipe,
  outcome: Outcome,
  haystacks: tasks.Haystacks,
) -> dict[str, Any]:
  """What is remembered of a sample, apart from its cost."""
  answer, decode = find_answer(recipe), session.tokenizer.decode
  right = outcome.predicted == answer.gold
  needle = recipe.needles[recipe.questions[0].needle]
  room = max(recipe.haystack_length, 1)
  recalled = outcome.recalled
  return {
    "depth": min(needle.position / room, 1.0),
    "gold": decode(answer.gold),
    "prediction": decode(outcome.predicted),
    "gold_ids": answer.gold.tolist(),
    "prediction_ids": outcome.predicted.tolist(),
    "correct": scores.exact_match(outcome.predicted, answer.gold),
    "answer_tokens": len(answer.gold),
    "correct_tokens": int(right.sum()),
    "recalled_tokens": None if recalled is None else int(recalled.sum()),
    "recalled_correct_tokens": (
      None if recalled is None else int((recalled & right).sum())
    ),
    "recall_at_k": None if recalled is None else float(recalled.mean()),
    "unique_fraction": tasks.unique_fraction(recipe, haystacks),
    "recipe": tasks.describe(recipe),
  }


def _cost_fields(cost: Cost, rows: int) -> dict[str, Any]:
  """Each sample's share of what its batch took."""
  return {
    "tokens_read": cost.tokens_read,
    "prefill_s": cost.prefill_s / rows,
    "suffix_s": cost.suffix_s / rows,
    "peak_rss_bytes": footprint().peak_rss_bytes,
    "device_bytes": cost.device_bytes,
    "host_bytes": cost.memory.host,
    "disk_bytes": cost.memory.disk,
  }
