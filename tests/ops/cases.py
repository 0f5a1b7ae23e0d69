"""Inputs shared by the tests of the operations."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hsa_jax.types import Selection


class ReadCase(NamedTuple):
  query: jax.Array
  keys: jax.Array
  values: jax.Array
  selection: Selection
  weights: jax.Array


def random_selection(
  rng: np.random.Generator, shape: tuple[int, int, int], chunks: int, top_k: int
) -> Selection:
  """Distinct chunk ids, nearest first, with 0..K of the slots valid."""
  index = np.zeros((*shape, top_k), np.int32)
  valid = np.zeros((*shape, top_k), bool)
  for where in np.ndindex(*shape):
    count = int(rng.integers(0, min(top_k, chunks) + 1))
    chosen = np.sort(rng.choice(chunks, count, replace=False))[::-1]
    index[where][:count] = chosen
    valid[where][:count] = True
  score = np.where(valid, rng.normal(size=valid.shape), -np.inf)
  return Selection(
    jnp.asarray(index), jnp.asarray(score, jnp.float32), jnp.asarray(valid)
  )


def read_case(
  name: str = "mixed",
  *,
  batch: int = 2,
  length: int = 5,
  heads: int = 4,
  memory_heads: int = 2,
  chunks: int = 3,
  chunk_size: int = 4,
  top_k: int = 2,
  head_dim: int = 6,
  dtype=jnp.float32,
) -> ReadCase:
  """A read with random content; `name` shapes the selection."""
  rng = np.random.default_rng(7)

  def draw(*shape):
    return jnp.asarray(rng.normal(size=shape), dtype)

  shape = (batch, length, memory_heads)
  selection = random_selection(rng, shape, chunks, top_k)
  if name == "all_invalid":
    selection = Selection(
      jnp.zeros_like(selection.index),
      jnp.full_like(selection.score, -jnp.inf),
      jnp.zeros_like(selection.valid),
    )
  if name == "one_popular":
    first = jnp.arange(top_k) == 0
    first = jnp.broadcast_to(first, selection.valid.shape)
    selection = Selection(
      jnp.where(first, 1, 0).astype(jnp.int32),
      jnp.where(first, 0.5, -jnp.inf),
      first,
    )
  weights = jnp.asarray(rng.uniform(size=selection.score.shape), jnp.float32)
  return ReadCase(
    draw(batch, length, heads, head_dim),
    draw(batch, chunks, chunk_size, memory_heads, head_dim),
    draw(batch, chunks, chunk_size, memory_heads, head_dim),
    selection,
    jnp.where(selection.valid, weights, 0.0),
  )
