"""Samples of random tokens, for the tests of the engines."""

import dataclasses
from typing import Any

import numpy as np

from hsa_jax.data.sample import NOWHERE, Answer
from hsa_jax.evaluation.session import Job


def make_job(length: int, num_samples: int = 3, **fields: Any) -> Job:
  base = Job("fake", "fake-v1", "task", "", "", length, num_samples)
  return dataclasses.replace(base, **fields)


@dataclasses.dataclass
class Tokens:
  """A sample that is an array."""

  tokens: np.ndarray
  depth: float = 0.5
  unique_fraction: float = 1.0

  @property
  def length(self) -> int:
    return len(self.tokens)

  def segment(self, start: int, stop: int) -> np.ndarray:
    return self.tokens[start:stop]

  def describe(self) -> dict[str, Any]:
    return {"sum": int(self.tokens.sum())}


@dataclasses.dataclass
class Forced(Tokens):
  """With answers at any positions, and sources at any others."""

  positions: tuple[int, ...] = ()
  sources: tuple[int, ...] = ()

  @property
  def answer(self) -> Answer:
    where = np.array(self.positions)
    return Answer(where, self.tokens[where], np.array(self.sources))


@dataclasses.dataclass
class Asking(Tokens):
  """A prompt."""

  max_new_tokens: int = 7
  references: tuple[str, ...] = ("yes",)
  evidence: tuple[int, ...] = ()


def random_forced(seed: int, length: int) -> Forced:
  """Answers with a gap between them, the last without a source."""
  rng = np.random.default_rng(seed)
  tokens = rng.integers(0, 256, length).astype(np.int32)
  positions = (length - 9, length - 8, length - 4, length - 3)
  sources = (*rng.integers(0, length - 40, 3).tolist(), NOWHERE)
  return Forced(tokens, positions=positions, sources=sources)


def random_prompt(seed: int, length: int, **fields: Any) -> Asking:
  rng = np.random.default_rng(seed)
  tokens = rng.integers(0, 256, length).astype(np.int32)
  evidence = tuple(rng.integers(0, length, 3).tolist())
  return Asking(tokens, evidence=evidence, **fields)
