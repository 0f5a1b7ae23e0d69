"""The eight needle tasks: keys and values hidden among noise, essays, needles.

The places follow RULER. Among essays, needles go between sentences at depths
of a grid of 40; which grid points is spread over the samples for the needle
that is asked first. Among lines, they go between any two of them.
"""

import enum
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from hsa_jax.data.ruler.assets import Words
from hsa_jax.data.ruler.essay import Essay
from hsa_jax.data.ruler.kinds import (
  Codes,
  Kind,
  KindName,
  draw_distinct,
  make_kind,
)
from hsa_jax.data.ruler.lexicon import Encode
from hsa_jax.data.ruler.needle_lines import NeedleLines
from hsa_jax.data.ruler.noise import noise_ring, place_lines
from hsa_jax.data.ruler.prompt import (
  Body,
  Chain,
  Fixed,
  Request,
  RulerPrompt,
  TooShort,
)
from hsa_jax.data.ruler.templates import (
  NEEDLE,
  enumeration,
  niah_head,
  niah_tail,
)
from hsa_jax.data.sample import Piece, Splice

Tokens = Int[np.ndarray, " n"]
NEW_TOKENS = 128
# Depths in percent: 40 points from 0 to 100.
GRID = tuple(int(d) for d in np.round(np.linspace(0, 100, 40)))


class Hay(enum.StrEnum):
  """What needles are hidden in."""

  NOISE = "noise"
  ESSAY = "essay"
  NEEDLE = "needle"


class NiahSpec(NamedTuple):
  """What tells the needle tasks apart.

  Attributes:
    hay: the haystack.
    key: kind of the names of needles.
    value: kind of what is asked.
    num_keys: different keys that are hidden.
    num_values: values of each key.
    num_queries: keys that are asked.
  """

  hay: Hay
  key: KindName = KindName.WORDS
  value: KindName = KindName.NUMBERS
  num_keys: int = 1
  num_values: int = 1
  num_queries: int = 1


SPECS = {
  "niah_single_1": NiahSpec(Hay.NOISE),
  "niah_single_2": NiahSpec(Hay.ESSAY),
  "niah_single_3": NiahSpec(Hay.ESSAY, value=KindName.UUIDS),
  "niah_multikey_1": NiahSpec(Hay.ESSAY, num_keys=4),
  "niah_multikey_2": NiahSpec(Hay.NEEDLE),
  "niah_multikey_3": NiahSpec(
    Hay.NEEDLE, key=KindName.UUIDS, value=KindName.UUIDS
  ),
  "niah_multivalue": NiahSpec(Hay.ESSAY, num_values=4),
  "niah_multiquery": NiahSpec(Hay.ESSAY, num_keys=4, num_queries=4),
}


class Needles(NamedTuple):
  """What one sample hides and asks.

  Attributes:
    keys: codes, one row per key.
    values: codes, `num_values` rows per key, in the order of the keys.
    asked: indices of the keys that are asked, in that order.
    depth: relative depth, in [0, 1), of the first needle that is asked.
  """

  keys: Codes
  values: Codes
  asked: tuple[int, ...]
  depth: float


class Placement(NamedTuple):
  """A prompt, and where the value of each needle begins."""

  body: Body
  positions: tuple[int, ...]
  unique_fraction: float


class NiahTask:
  """Makes the samples of one needle task."""

  def __init__(
    self, name: str, encode: Encode, words: Words, essay: Essay | None
  ):
    """`essay` is needed by tasks that hide needles in essays."""
    self.name, self._spec, self._encode = name, SPECS[name], encode
    self._key = make_kind(self._spec.key, words, encode)
    self._value = make_kind(self._spec.value, words, encode)
    self._essay, self._noise = essay, noise_ring(encode)
    self._lines = None
    if self._spec.hay is Hay.NEEDLE:
      kind = str(self._spec.value)
      self._lines = NeedleLines(kind, self._key, self._value, encode)

  def build(self, request: Request) -> RulerPrompt:
    """One sample.

    Raises:
      TooShort: question and needles do not fit into the length.
    """
    rng = request.rng(self.name)
    needles = self._draw(rng, request)
    placement = self._place(rng, request, needles)
    per_key = self._spec.num_values
    rows = [k * per_key + j for k in needles.asked for j in range(per_key)]
    return RulerPrompt(
      body=placement.body,
      depth=needles.depth,
      unique_fraction=placement.unique_fraction,
      max_new_tokens=NEW_TOKENS,
      references=tuple(self._value.text(needles.values[i]) for i in rows),
      evidence=tuple(placement.positions[i] for i in rows),
      recipe=self._recipe(request, needles, placement),
    )

  def _draw(self, rng: np.random.Generator, request: Request) -> Needles:
    spec = self._spec
    depth = request.depth(rng)
    keys = draw_distinct(self._key, rng, spec.num_keys)
    values = draw_distinct(self._value, rng, spec.num_keys * spec.num_values)
    asked = rng.permutation(spec.num_keys)[: spec.num_queries].tolist()
    return Needles(keys, values, tuple(asked), depth)

  def _place(
    self, rng: np.random.Generator, request: Request, needles: Needles
  ) -> Placement:
    if self._lines is not None:
      return self._among_needles(request, needles, self._lines)
    if self._spec.hay is Hay.NOISE:
      return self._in_noise(request, needles)
    if self._essay is None:
      raise ValueError(f"{self.name}: needs essays")
    return self._in_essay(rng, request, needles, self._essay)

  def _in_noise(self, request: Request, needles: Needles) -> Placement:
    head, tail = self._frame(needles)
    before, text = self._needle_text(needles, 0)
    placed = place_lines(
      self._noise,
      head,
      [self._encode(text + "\n")],
      [needles.depth],
      self._encode(tail),
      request.length,
      NEW_TOKENS,
    )
    value = placed.positions[0] + len(self._encode(before))
    return Placement(placed.body, (value,), placed.unique_fraction)

  def _among_needles(
    self, request: Request, needles: Needles, lines: NeedleLines
  ) -> Placement:
    head = niah_head(self._spec.value, 1)
    first, second, third = niah_tail(self._spec.value, 1)
    key = lines.key_tokens(needles.keys)
    cut = self._encode  # the space before a key belongs to the key's tokens
    tail = [cut(first[:-1]), key, cut(second[:-1]), key, cut(third)]
    ends = [Fixed(self._encode(head)), Fixed(np.concatenate(tail))]
    room = request.length - NEW_TOKENS - sum(part.length for part in ends)
    if room < lines.most:
      raise TooShort(request.length - room + lines.most)
    rng = request.filler_rng(self.name)
    rows, at = lines.make(
      rng, room, needles.keys, needles.values, needles.depth
    )
    body = Chain([ends[0], rows, ends[1]])
    return Placement(body, (ends[0].length + at,), 1.0)

  def _in_essay(
    self,
    rng: np.random.Generator,
    request: Request,
    needles: Needles,
    essay: Essay,
  ) -> Placement:
    head, tail = self._frame(needles)
    tail = self._encode("\n" + tail)
    texts = [self._needle_text(needles, i) for i in range(len(needles.values))]
    tokens = [self._encode(" " + text) for _, text in texts]
    values = [len(self._encode(" " + before)) for before, _ in texts]
    length = request.length - NEW_TOKENS
    used = len(head) + sum(map(len, tokens)) + len(tail)
    filler = length - used
    if filler < len(essay.first):
      raise TooShort(request.length - filler + len(essay.first))
    gaps = self._gaps(rng, needles, essay.count_starts(filler + essay.space))
    order = sorted(range(len(tokens)), key=gaps.__getitem__)
    pieces, ring_start = [Piece(0, head)], 0
    if gaps[order[0]] == 0:
      # RULER puts no space before a needle that comes first.
      bare = self._encode(texts[order[0]][1])
      values[order[0]] -= len(tokens[order[0]]) - len(bare)
      filler += len(tokens[order[0]]) - len(bare)
      tokens[order[0]] = bare
    else:
      ring_start = essay.size_of_first
      pieces = [Piece(0, np.concatenate([head, essay.first]))]
    shift = essay.space if ring_start else 0
    at, positions = len(head) - shift, [0] * len(tokens)
    last = filler + shift
    sentences = essay.count_starts(last)
    for i in order:
      inside = last if gaps[i] >= sentences else essay.start(gaps[i])
      positions[i] = at + inside + values[i]
      pieces.append(Piece(at + inside, tokens[i]))
      at += len(tokens[i])
    pieces.append(Piece(length - len(tail), tail))
    body = Splice(essay.ring, ring_start, pieces, length)
    unique = min(1.0, len(essay.ring) / filler)
    return Placement(body, tuple(positions), unique)

  def _gaps(
    self, rng: np.random.Generator, needles: Needles, sentences: int
  ) -> list[int]:
    """Before which sentence each needle goes."""
    first = needles.asked[0] * self._spec.num_values
    chosen = int(needles.depth * len(GRID))
    others = iter([i for i in rng.permutation(len(GRID)) if i != chosen])
    points = [
      chosen if i == first else next(others) for i in range(len(needles.values))
    ]
    return [sentences * GRID[p] // 100 for p in points]

  def _frame(self, needles: Needles) -> tuple[Tokens, str]:
    """Tokens of the task text, and the question."""
    kind = self._spec.value
    answers = self._spec.num_queries * self._spec.num_values
    names = enumeration(
      [self._key.text(needles.keys[k]) for k in needles.asked]
    )
    head = self._encode(niah_head(kind, answers))
    return head, names.join(niah_tail(kind, answers))

  def _needle_text(self, needles: Needles, i: int) -> tuple[str, str]:
    """A needle up to its value, and the whole."""
    key = self._key.text(needles.keys[i // self._spec.num_values])
    value = self._value.text(needles.values[i])
    text = NEEDLE.format(kind=self._spec.value, key=key, value=value)
    return text[: -len(f" {value}.")], text

  def _recipe(
    self, request: Request, needles: Needles, placement: Placement
  ) -> dict[str, Any]:
    return {
      "task": self.name,
      "keys": _texts(self._key, needles.keys),
      "values": _texts(self._value, needles.values),
      "asked": list(needles.asked),
      "positions": list(placement.positions),
    }


def _texts(kind: Kind, codes: Sequence[Any] | Codes) -> list[str]:
  return [kind.text(row) for row in codes]
