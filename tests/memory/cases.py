"""Random blocks of chunks for the tests of the homes."""

import jax
import numpy as np

from hsa_jax.types import ChunkBlock

BATCH, TOKENS, SIZE, HEADS, DIM = 2, 7, 4, 2, 8


def make_block(chunks: int, seed: int = 0) -> ChunkBlock:
  """Numpy arrays, so that making and cutting them compiles nothing."""
  rng = np.random.default_rng(seed)
  shapes = [(HEADS, DIM), (SIZE, HEADS, DIM), (SIZE, HEADS, DIM)]
  draws = (rng.standard_normal((BATCH, chunks, *s)) for s in shapes)
  return ChunkBlock(*(x.astype(np.float32) for x in draws))


def cut(block: ChunkBlock, start: int, stop: int) -> ChunkBlock:
  return ChunkBlock(*(x[:, start:stop] for x in block))


def make_query(heads: int = HEADS, seed: int = 9) -> jax.Array:
  rng = np.random.default_rng(seed)
  shape = (BATCH, TOKENS, heads, DIM)
  return jax.numpy.asarray(rng.standard_normal(shape, dtype=np.float32))
