"""Suite `passkey`: ten random ids (RAMba), or a number in prose (Landmark).

`passkey_ids` is teacher forced and scores the last id. `passkey_text` is
generated: correct iff the first whole number of the continuation is the key.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from hsa_jax.config import SourceConfig, Task
from hsa_jax.data.sample import Prompt
from hsa_jax.data.tokens.passkey import LandmarkPasskey, PasskeyPrompt, is_right
from hsa_jax.evaluation import scores
from hsa_jax.evaluation.generated import run_generated_job
from hsa_jax.evaluation.lengths import FlagError, format_length
from hsa_jax.evaluation.session import Job, Session, Settings
from hsa_jax.evaluation.suite import Asked, chosen_tasks, make_job
from hsa_jax.evaluation.token_suite import (
  TokenSuite,
  Variant,
  length_problems,
)

IDS, TEXT = "passkey_ids", "passkey_text"
IDS_PROTOCOL = "passkey-ids-v1"
TEXT_PROTOCOL = "passkey-landmark-v1"


def _ids(settings: Settings) -> list[Variant]:
  return [
    Variant(
      SourceConfig(task=Task.PASSKEY, haystack=haystack),
      IDS_PROTOCOL,
      str(haystack),
      "last_id",
      "passkey",
    )
    for haystack in settings.haystacks
  ]


class PasskeySuite:
  """Both forms; meets `Suite`."""

  name = "passkey"
  summary = "ten random ids, last one scored; or a number in repeated sentences"
  tasks = (IDS, TEXT)

  def __init__(self) -> None:
    self._forced = TokenSuite(self.name, self.summary, {IDS: _ids})

  def check(self, asked: Asked) -> None:
    """Raises `FlagError`: a length too short, no such haystack."""
    problems: list[str] = []
    chosen = chosen_tasks(asked.settings, self.tasks)
    if IDS in chosen:
      try:
        self._forced.check(asked)
      except FlagError as error:
        problems += error.problems
    if TEXT in chosen:
      need = LandmarkPasskey(asked.tokenizer).min_length
      what = f"prompt and answer of {TEXT}"
      problems += length_problems(asked.settings, need, what)
    if problems:
      raise FlagError(problems)

  def jobs(self, asked: Asked) -> list[Job]:
    """The form of ids first, each at every length."""
    chosen = chosen_tasks(asked.settings, self.tasks)
    found = self._forced.jobs(asked) if IDS in chosen else []
    if TEXT in chosen:
      found += [
        make_job(
          self.name,
          TEXT_PROTOCOL,
          TEXT,
          length,
          asked.settings,
          haystack="noise",
          needle="number",
        )
        for length in asked.settings.lengths
      ]
    return found

  def run(self, session: Session, job: Job) -> dict[str, Any]:
    """Measures one job; returns its result line."""
    if job.task == IDS:
      return self._forced.run(session, job)
    maker = LandmarkPasskey(session.tokenizer)

    def make(number: int) -> PasskeyPrompt:
      return maker.prompt(
        seed=session.settings.seed,
        sample=number,
        num_samples=job.num_samples,
        length=job.length,
      )

    return run_generated_job(
      session, job, make, score=_score, summarise=_summarise
    )

  def describe(self, result: dict[str, Any]) -> str:
    """One line for the terminal."""
    if result["task"] == IDS:
      return self._forced.describe(result)
    return (
      f"{TEXT} {format_length(result['length'])}:"
      f" {result['num_correct']}/{result['num_samples']} correct"
      f" [{result['ci_low']:.2f}, {result['ci_high']:.2f}],"
      f" {result['tokens_per_s']:,.0f} tokens/s"
    )


SUITE = PasskeySuite()


def _score(prompt: Prompt, prediction: str) -> Mapping[str, Any]:
  return {"correct": is_right(prediction, prompt.references)}


def _summarise(rows: Sequence[dict]) -> Mapping[str, Any]:
  correct = sum(row["correct"] for row in rows)
  interval = scores.wilson(correct, len(rows))
  return {
    "score": correct / len(rows),
    "ci_low": interval.low,
    "ci_high": interval.high,
    "metric": "first_integer",
    "num_correct": correct,
  }
