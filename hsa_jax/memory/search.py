"""Exact top-k over any number of landmarks, a block of them at a time.

A running list of the K best candidates per token meets one block of landmarks
after another, so the scores of all chunks never exist at once. Among equal
scores the later chunk wins, as in `ops.select`, however the chunks are divided
into blocks or among devices.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from hsa_jax.ops.select import nearest_first, retrieval_scores
from hsa_jax.types import Landmarks, Selection

SEARCH_BLOCK = 16_384  # landmarks per step; top-k gains little beyond
QUERY_TILE = 1_024  # queries per step: bounds the scores to 64 MiB per head


class Candidates(NamedTuple):
  """The best chunks so far; unused slots hold score -inf and index -1."""

  score: Float[Array, "B T G K"]
  index: Int[Array, "B T G K"]


def no_candidates(lead: tuple[int, ...], top_k: int) -> Candidates:
  """What a search starts from.

  Raises:
    ValueError: if `top_k < 1`.
  """
  if top_k < 1:
    raise ValueError(f"top_k = {top_k}: must be at least 1")
  shape = (*lead, top_k)
  return Candidates(
    jnp.full(shape, -jnp.inf, jnp.float32), jnp.full(shape, -1, jnp.int32)
  )


def meet_block(
  query: Float[Array, "B T G R"],
  landmarks: Landmarks,
  ids: Int[Array, " C"],
  num_visible: Int[Array, " T"],
  best: Candidates,
) -> Candidates:
  """Candidates after one more block of landmarks.

  Args:
    query: retrieval queries.
    landmarks: the block.
    ids: their chunk ids, ascending and above all that `best` holds; -1 marks
      landmarks to pass over.
    num_visible: chunks `0 .. n - 1` may be chosen, per token.
    best: candidates so far.
  """

  def one_token(token: tuple[Array, Array, Candidates]) -> Candidates:
    query, visible, best = token
    scores = retrieval_scores(query[:, None], landmarks)[:, 0]
    seen = (ids >= 0) & (ids < visible)
    scores = jnp.where(seen[None, None], scores, -jnp.inf)
    return _keep_best(scores, ids, best)

  def tokens_first(x: Array) -> Array:
    return jnp.swapaxes(x, 0, 1)

  best = Candidates(*map(tokens_first, best))
  tokens = (tokens_first(query), num_visible, best)
  best = lax.map(one_token, tokens, batch_size=QUERY_TILE)
  return Candidates(*map(tokens_first, best))


def search_landmarks(
  query: Float[Array, "B T G R"],
  landmarks: Landmarks,
  *,
  num_visible: Int[Array, " T"],
  best: Candidates,
  first: Int[Array, ""] | int = 0,
  stride: int = 1,
  block: int = SEARCH_BLOCK,
) -> Candidates:
  """Candidates among the chunks `first + stride * i` of landmark `i`.

  Args:
    query: retrieval queries.
    landmarks: of all chunks held here; the tail may be unused room.
    num_visible: chunks `0 .. n - 1` may be chosen, per token.
    best: what to start from.
    first: chunk id of landmark 0.
    stride: from the chunk id of one landmark to that of the next.
    block: landmarks per step.

  Cost: steps up to the last landmark that any token sees;
    [B, min(T, QUERY_TILE), G, block] float32 scores.
  """
  room = landmarks.shape[1]
  block = min(block, room)
  seen = (jnp.max(num_visible) - first + stride - 1) // stride

  def step(i: Array, best: Candidates) -> Candidates:
    # The last block ends with the array; what it shares with the block before
    # is passed over.
    begin = jnp.minimum(i * block, room - block)
    slot = begin + jnp.arange(block, dtype=jnp.int32)
    ids = jnp.where(slot >= i * block, first + stride * slot, -1)
    part = lax.dynamic_slice_in_dim(landmarks, begin, block, axis=1)
    return meet_block(query, part, ids, num_visible, best)

  steps = (jnp.clip(seen, 0, room) + block - 1) // block
  return lax.fori_loop(0, steps, step, best)


def merge(candidates: Candidates, top_k: int) -> Candidates:
  """The `top_k` best of a longer list in any order."""
  order = jnp.argsort(-candidates.index, axis=-1)
  index = jnp.take_along_axis(candidates.index, order, axis=-1)
  score = jnp.take_along_axis(candidates.score, order, axis=-1)
  score, slot = lax.top_k(score, top_k)
  return Candidates(score, jnp.take_along_axis(index, slot, axis=-1))


def to_selection(best: Candidates) -> Selection:
  """Nearest-first order; unused slots at the tail."""
  score, index = best
  index = jnp.where(score > -jnp.inf, index, -1)
  score = jnp.take_along_axis(score, jnp.argsort(-index, axis=-1), axis=-1)
  index = nearest_first(index)
  return Selection(jnp.maximum(index, 0), score, index >= 0)


def _keep_best(
  scores: Float[Array, "B G C"], ids: Int[Array, " C"], best: Candidates
) -> Candidates:
  """The K best of a block and of what was best before it.

  `lax.top_k` prefers the earlier of equals, so candidates are laid out from
  the latest chunk to the earliest: the block reversed, then what was best.
  """
  width = min(best.score.shape[-1], ids.shape[0])
  # Narrowed first: the merge then sorts 2K candidates, not a whole block.
  block_score, slot = lax.top_k(scores[..., ::-1], width)
  score = jnp.concatenate([block_score, best.score], axis=-1)
  index = jnp.concatenate([ids[::-1][slot], best.index], axis=-1)
  score, slot = lax.top_k(score, best.score.shape[-1])
  return Candidates(score, jnp.take_along_axis(index, slot, axis=-1))
