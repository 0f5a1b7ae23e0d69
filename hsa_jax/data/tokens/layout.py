"""How a sample is laid out: needles in filler, the question at the end."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Int

from hsa_jax.data.rng import EVAL, make_rng
from hsa_jax.data.sample import NOWHERE, Answer, Piece, Splice
from hsa_jax.data.tokens.rings import Haystacks


class Body(Protocol):
  """Tokens that are rendered by the stretch."""

  length: int

  def segment(self, start: int, stop: int) -> Int[np.ndarray, " n"]:
    """Tokens `start .. stop - 1`, int32."""
    ...


class TokenSample(NamedTuple):
  """A teacher-forced sample; meets `data.sample.ForcedSample`.

  Attributes:
    body: its tokens.
    answer: where the answer tokens are, and what they repeat.
    depth: relative depth of what is looked for first.
    unique_fraction: share of the filler that does not repeat earlier filler.
    recipe: what determines it, as plain numbers and strings.
  """

  body: Body
  answer: Answer
  depth: float
  unique_fraction: float
  recipe: dict[str, Any]

  @property
  def length(self) -> int:
    """Number of tokens."""
    return self.body.length

  def segment(self, start: int, stop: int) -> Int[np.ndarray, " n"]:
    """Tokens `start .. stop - 1`, int32, and nothing else is made.

    Raises:
      ValueError: the range is not inside the sample.
    """
    return self.body.segment(start, stop)

  def describe(self) -> dict[str, Any]:
    """The recipe, for a line of JSON."""
    return self.recipe


class TokenTask(Protocol):
  """Draws the samples of one kind.

  Attributes:
    min_length: tokens that any sample of the kind fits in.
  """

  min_length: int

  def draw(
    self,
    rng: np.random.Generator,
    haystacks: Haystacks,
    *,
    length: int,
    depth: float | None = None,
  ) -> TokenSample:
    """Draws a sample.

    The same generator state gives the same names, values, relative depths and
    beginning of the filler at every length.

    Args:
      rng: generator, consumed.
      haystacks: rings that filler is cut from.
      length: tokens of the sample, answer and eos included; `min_length` is
        always enough.
      depth: relative depth in [0, 1] of what is asked first; None draws it.

    Raises:
      ValueError: `length` is too short for what was drawn.
    """
    ...


class Tail:
  """The end of a sample, written part by part, before its place is known."""

  def __init__(self):
    self._parts: list[np.ndarray] = []
    self._answers: list[tuple[int, np.ndarray, int, int]] = []
    self.length = 0

  def write(self, *parts: Int[np.ndarray, " n"]) -> None:
    """Adds tokens that are given to the model."""
    self._parts += parts
    self.length += sum(map(len, parts))

  def ask(
    self,
    tokens: Int[np.ndarray, " n"],
    *,
    needle: int = NOWHERE,
    offset: int = 0,
  ) -> None:
    """Adds tokens that the model must say.

    Args:
      tokens: of the answer.
      needle: index of the needle that they repeat.
      offset: of the first of them in that needle.
    """
    self._answers.append((self.length, tokens, needle, offset))
    self.write(tokens)

  @property
  def tokens(self) -> Int[np.ndarray, " n"]:
    """Everything written."""
    return np.concatenate(self._parts)

  def answer(self, base: int, starts: Sequence[int]) -> Answer:
    """The answer of a sample whose tail begins at `base`.

    Args:
      base: index in the sample of the tail's first token.
      starts: index of the first token of every needle.
    """
    positions, gold, sources = [], [], []
    for at, tokens, needle, offset in self._answers:
      count = np.arange(len(tokens))
      known = needle != NOWHERE
      positions.append(base + at + count)
      gold.append(tokens)
      sources.append(
        starts[needle] + offset + count if known else 0 * count + NOWHERE
      )
    return Answer(*map(np.concatenate, (positions, gold, sources)))


class Layout(NamedTuple):
  """Where everything ended up.

  Attributes:
    body: filler, needles and tail.
    starts: index of each needle's first token, in the order they were given.
    depths: share of the haystack that stands before each of them.
    answer: of the tail.
  """

  body: Splice
  starts: tuple[int, ...]
  depths: tuple[float, ...]
  answer: Answer


def lay_out(
  ring: Int[np.ndarray, " n"],
  start: int,
  needles: Sequence[Int[np.ndarray, " n"]],
  where: Sequence[float],
  tail: Tail,
  length: int,
) -> Layout:
  """Puts needles at their relative depths and the tail at the very end.

  Args:
    ring: filler.
    start: index in the ring of the first filler token.
    needles: tokens of each.
    where: relative depth in [0, 1] of each; equal depths keep their order.
    tail: the end.
    length: tokens of the sample.

  Raises:
    ValueError: no token is left for the filler.
  """
  base = length - tail.length
  room = base - sum(map(len, needles))
  if room < 1:
    raise ValueError(
      f"length = {length}: needles and questions take {length - room} tokens,"
      " and the haystack needs one more"
    )
  starts, depths = [0] * len(needles), [0.0] * len(needles)
  pieces, used = [], 0
  for i in in_order(where):
    before = min(int(where[i] * (room + 1)), room)
    starts[i], depths[i] = before + used, before / room
    used += len(needles[i])
    pieces.append(Piece(starts[i], needles[i]))
  pieces.append(Piece(base, tail.tokens))
  body = Splice(ring, start, pieces, length)
  answer = tail.answer(base, starts)
  return Layout(body, tuple(starts), tuple(depths), answer)


def in_order(where: Sequence[float]) -> list[int]:
  """Indices by ascending depth."""
  return sorted(range(len(where)), key=where.__getitem__)


def unique_fraction(ring: Int[np.ndarray, " n"], filler: int) -> float:
  """Share of `filler` tokens that are not a second turn of the ring."""
  return min(1.0, len(ring) / max(filler, 1))


def evaluation_sample(
  task: TokenTask,
  haystacks: Haystacks,
  *,
  stream: str,
  seed: int,
  sample: int,
  num_samples: int,
  length: int,
) -> TokenSample:
  """One evaluation sample, reproducible alone.

  Sample `i` of `n` has relative depth (i + u) / n, with u uniform. What is
  drawn depends on `stream`, `seed` and `sample` only, so samples are paired
  over lengths. The stream is disjoint from every training stream.

  Args:
    task: of one kind.
    haystacks: rings of the held-out split.
    stream: name of the task; "" is the stream of S-NIAH.
    seed: of the suite.
    sample: index, 0 <= sample < num_samples.
    num_samples: samples at this length.
    length: tokens of the sample, answer and eos included.
  """
  rng = make_rng(seed, evaluation_purpose(stream), sample)
  depth = (sample + rng.random()) / num_samples
  return task.draw(rng, haystacks, length=length, depth=depth)


def evaluation_purpose(stream: str) -> str:
  """Purpose of the random stream of an evaluation task."""
  return f"{EVAL}/{stream}" if stream else EVAL
