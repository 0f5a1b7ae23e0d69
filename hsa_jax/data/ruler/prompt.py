"""What every task makes: a prompt that renders any stretch of its tokens."""

import bisect
import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Int

from hsa_jax.data.errors import DataError
from hsa_jax.data.rng import EVAL, make_rng
from hsa_jax.data.sample import check_range

Tokens = Int[np.ndarray, " n"]


class TooShort(DataError):
  """A length that the text of a sample does not fit into.

  Attributes:
    needed: the least length that this sample fits into.
  """

  def __init__(self, needed: int):
    self.needed = needed
    super().__init__(f"the sample needs {needed} tokens")


class TooLong(DataError):
  """A length for which there is not enough different text.

  Attributes:
    most: the greatest length that this sample can fill.
    what: what runs out.
  """

  def __init__(self, most: int, what: str):
    self.most, self.what = most, what
    super().__init__(f"{what}: enough for {most} tokens")


class Request(NamedTuple):
  """Which sample.

  Attributes:
    seed: of the suite.
    sample: index, 0 <= sample < num_samples.
    num_samples: samples at this length; depths are spread over them.
    length: tokens of prompt and answer together.
  """

  seed: int
  sample: int
  num_samples: int
  length: int

  def rng(self, task: str) -> np.random.Generator:
    """Draws what is the same at every length."""
    return make_rng(self.seed, f"{EVAL}-ruler-{task}", self.sample)

  def filler_rng(self, task: str) -> np.random.Generator:
    """Draws filler, of which longer samples have more."""
    return make_rng(self.seed, f"{EVAL}-ruler-{task}-filler", self.sample)

  def depth(self, rng: np.random.Generator) -> float:
    """Relative depth in [0, 1), one per sample of equal strata."""
    return (self.sample + rng.random()) / self.num_samples


class Body(Protocol):
  """Tokens, rendered by the stretch."""

  @property
  def length(self) -> int: ...

  def segment(self, start: int, stop: int) -> Tokens: ...


class Fixed:
  """Tokens that lie in memory."""

  def __init__(self, tokens: Tokens):
    self._tokens = tokens.astype(np.int32, copy=False)

  @property
  def length(self) -> int:
    return len(self._tokens)

  def segment(self, start: int, stop: int) -> Tokens:
    check_range(start, stop, self.length)
    return self._tokens[start:stop]


class Chain:
  """Bodies one after the other."""

  def __init__(self, parts: Sequence[Body]):
    self._parts = tuple(parts)
    self._ends = list(itertools.accumulate(p.length for p in parts))

  @property
  def length(self) -> int:
    return self._ends[-1]

  def segment(self, start: int, stop: int) -> Tokens:
    check_range(start, stop, self.length)
    pieces = [np.empty(0, np.int32)]
    first = bisect.bisect_right(self._ends, start)
    for part, end in zip(self._parts[first:], self._ends[first:], strict=True):
      begin = end - part.length
      if begin >= stop:
        break
      inside = max(start, begin) - begin, min(stop, end) - begin
      pieces.append(part.segment(*inside))
    return np.concatenate(pieces)


@dataclasses.dataclass(frozen=True)
class RulerPrompt:
  """One sample; see `hsa_jax.data.sample.Prompt` for its attributes."""

  body: Body
  depth: float
  unique_fraction: float
  max_new_tokens: int
  references: tuple[str, ...]
  evidence: tuple[int, ...]
  recipe: dict[str, Any]

  @property
  def length(self) -> int:
    return self.body.length

  def segment(self, start: int, stop: int) -> Tokens:
    return self.body.segment(start, stop)

  def describe(self) -> dict[str, Any]:
    return dict(self.recipe, length=self.length)
