"""Facts between the sentences of books, at any length.

Each fact goes to a gap between two sentences, drawn uniformly and with
replacement; the order of the facts is kept. The last sentence is cut where the
length asks for it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from hsa_jax.data.babi.background import Background
from hsa_jax.data.sample import Piece, Splice
from hsa_jax.data.tokenizer import Tokenizer


class Plan(NamedTuple):
  """All that determines a context, whatever its length.

  Attributes:
    facts: sentences, in order.
    where: for each fact a number in [0, 1), ascending: its place among gaps.
    first: number of the first sentence of the background.
  """

  facts: tuple[str, ...]
  where: tuple[float, ...]
  first: int


class Woven(NamedTuple):
  """A context between a head and a tail.

  Attributes:
    splice: all tokens.
    places: index of the first token of each fact.
    tokens: of each fact.
    unique_fraction: share of the background that repeats nothing.
  """

  splice: Splice
  places: tuple[int, ...]
  tokens: tuple[Int[np.ndarray, " n"], ...]
  unique_fraction: float


def draw_plan(
  rng: np.random.Generator, facts: Sequence[str], background: Background
) -> Plan:
  """Places of the facts and of the background's beginning."""
  where = tuple(np.sort(rng.random(len(facts))).tolist())
  first = int(rng.random() * len(background.starts))
  return Plan(tuple(facts), where, first)


def fact_room(tokenizer: Tokenizer, facts: Sequence[str]) -> int:
  """Most tokens that facts take, wherever they stand."""
  encode = tokenizer.encode
  return sum(max(len(encode(f" {f}")), len(encode(f))) for f in facts)


def weave(
  plan: Plan,
  background: Background,
  tokenizer: Tokenizer,
  *,
  head: Int[np.ndarray, " n"],
  tail: Int[np.ndarray, " m"],
  length: int,
) -> Woven:
  """Tokens of head, context and tail together, exactly `length`.

  Args:
    plan: of the context.
    background: its sentences.
    tokenizer: encodes the facts, each after a space.
    head: tokens before the context, which begins without a space.
    tail: tokens after it.
    length: at least those of head, tail and `fact_room`.
  """
  encode = tokenizer.encode
  tokens = [encode(f" {fact}") for fact in plan.facts]
  room = length - len(head) - len(tail) - sum(map(len, tokens))
  begin = background.offset(plan.first)
  count = background.sentence_at(begin + max(room, 0)) - plan.first
  gaps = [int(w * (count + 1)) for w in plan.where]
  opening, after = encode(""), plan.first
  if gaps and gaps[0] == 0:
    tokens[0] = encode(plan.facts[0])
  else:
    text = tokenizer.decode(background.sentence(plan.first))
    opening, after = encode(text.lstrip())[: max(room, 0)], plan.first + 1
  begin = background.offset(after)
  used = len(head) + len(opening)
  filler = length - used - len(tail) - sum(map(len, tokens))
  pieces = [Piece(0, np.concatenate([head, opening]))]
  for gap, ids in zip(gaps, tokens, strict=True):
    offset = background.offset(plan.first + gap) - begin
    pieces.append(Piece(used + min(max(offset, 0), filler), ids))
    used += len(ids)
  pieces.append(Piece(length - len(tail), tail))
  places = tuple(piece.position for piece in pieces[1:-1])
  splice = Splice(background.tokens, begin, pieces, length)
  unique = min(1.0, len(background.tokens) / max(filler, 1))
  return Woven(splice, places, tuple(tokens), unique)
