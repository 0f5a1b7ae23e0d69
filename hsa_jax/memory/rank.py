"""Where a chunk stands among all the chunks that a token may choose from.

Rank 1 is the chunk a token wants most; a search with `top_k` slots finds the
chunks of rank `1 .. top_k`. Scores of all chunks never exist at once: blocks of
landmarks are scored twice, first those that hold a chunk asked for, then all,
counting what scores higher. Both times the same program scores a block, so that
equal landmarks have equal scores; of equals the later chunk stands first, as in
a search. A search scores other queries beside these, in another program: scores
that differ in their last bit only may change places between the two.
"""

from collections.abc import Callable, Iterator
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from hsa_jax.memory.search import SEARCH_BLOCK
from hsa_jax.ops.select import retrieval_scores
from hsa_jax.types import Landmarks

NO_RANK = 0  # of a chunk that a token may not choose
QUERY_TILE = 64  # queries per step: bounds the scores to 4 MiB per head


class HasLandmarks(Protocol):
  """What ranks are counted over: every home of the memory."""

  @property
  def num_chunks(self) -> int:
    """Complete chunks held."""
    ...

  def landmarks(self, start: int, stop: int) -> Landmarks | np.ndarray:
    """Landmarks `[B C G R]` of the chunks `start .. stop - 1`."""
    ...


def rank_chunks(
  memory: HasLandmarks,
  query: Float[np.ndarray, "B n G R"],
  chunk: Int[np.ndarray, "B n"],
  num_visible: Int[np.ndarray, "B n"],
  *,
  block: int = SEARCH_BLOCK,
) -> Int[np.ndarray, "B n G"]:
  """Exact rank of one chunk per query, counted from 1.

  Args:
    memory: all chunks.
    query: retrieval queries.
    chunk: the chunk whose rank is wanted.
    num_visible: chunks `0 .. n - 1` may be chosen, per query.
    block: landmarks per step.

  Returns:
    Ranks; `NO_RANK` for a chunk that is negative or not visible.

  Cost: every visible landmark is read at most twice; scores of QUERY_TILE
    queries and a block exist at once.
  """
  visible = np.minimum(num_visible, memory.num_chunks).astype(np.int32)
  possible = (chunk >= 0) & (chunk < visible)
  end = int(visible[possible].max()) if possible.any() else 0
  if not end:
    return np.full(query.shape[:3], NO_RANK, np.int32)
  wanted = np.where(possible, chunk, -1).astype(np.int32)
  asked = (jnp.asarray(query), jnp.asarray(wanted))
  gold = jnp.full(query.shape[:3], -jnp.inf, jnp.float32)
  for begin, ids in _blocks(memory.num_chunks, end, block):
    if np.isin(ids, wanted).any():
      landmarks = jnp.asarray(memory.landmarks(begin, begin + len(ids)))
      gold = _find(landmarks, ids, *asked, gold)
  above = jnp.zeros(query.shape[:3], jnp.int32)
  for begin, ids in _blocks(memory.num_chunks, end, block):
    landmarks = jnp.asarray(memory.landmarks(begin, begin + len(ids)))
    above = jax.block_until_ready(above)  # frees the block before the last
    above = _count(landmarks, ids, *asked, visible, gold, above)
  return np.where(possible[..., None], 1 + np.asarray(above), NO_RANK)


def _blocks(
  held: int, end: int, block: int
) -> Iterator[tuple[int, Int[np.ndarray, " C"]]]:
  """First chunk and ids of blocks of one size up to chunk `end`.

  The last one ends with what is held; the ids that it shares with the block
  before are -1.
  """
  size = min(block, held)
  for start in range(0, end, size):
    begin = min(start, held - size)
    ids = np.arange(begin, begin + size, dtype=np.int32)
    yield begin, np.where(ids >= start, ids, -1)


def _scores(query: Array, landmarks: Array) -> Array:
  """Scores `[B G C]` of one query per row."""
  return retrieval_scores(query[:, None], landmarks)[:, 0]


def _over_queries(one: Callable[..., Array], *parts: Array) -> Array:
  """`one` on each query of `[B n ...]`, a tile of them at a time."""
  first = tuple(jnp.swapaxes(part, 0, 1) for part in parts)
  out = lax.map(lambda xs: one(*xs), first, batch_size=QUERY_TILE)
  return jnp.swapaxes(out, 0, 1)


@jax.jit
def _find(
  landmarks: Array,
  ids: Array,
  query: Array,
  chunk: Array,
  gold: Array,
) -> Array:
  """The score of each wanted chunk that lies in the block, else as before."""

  def one(query: Array, chunk: Array, gold: Array) -> Array:
    here = (ids[None] == chunk[:, None]) & (ids >= 0)[None]
    scores = jnp.where(here[:, None], _scores(query, landmarks), -jnp.inf)
    return jnp.maximum(gold, jnp.max(scores, axis=-1))

  return _over_queries(one, query, chunk, gold)


@jax.jit
def _count(
  landmarks: Array,
  ids: Array,
  query: Array,
  chunk: Array,
  num_visible: Array,
  gold: Array,
  above: Array,
) -> Array:
  """Adds the chunks of the block that stand before the wanted one."""

  def one(
    query: Array, visible: Array, chunk: Array, gold: Array, above: Array
  ) -> Array:
    scores, gold = _scores(query, landmarks), gold[..., None]
    seen = ((ids >= 0)[None] & (ids[None] < visible[:, None]))[:, None]
    later = (ids[None] > chunk[:, None])[:, None]
    before = (scores > gold) | ((scores == gold) & later)
    return above + jnp.sum(seen & before, axis=-1, dtype=jnp.int32)

  return _over_queries(one, query, num_visible, chunk, gold, above)
