"""Landmark tokens inside the stream: where they stand, and how they travel.

With `hsa.landmark = token` the model inserts a token of its own, a *mark*,
behind every chunk, as GCA does (arXiv 2410.01651):

    tokens   t0 .. t62     t63 .. t125     ...
    stream   t0 .. t62 M   t63 .. t125 M   ...

Windows and positions count marks; nobody outside the model sees them. Between
its stages a stretch of states has one row per token, twice as wide: the token's
own, and that of the mark behind it. So any stretch can be cut anywhere, and it
has the same shape wherever it stands.
"""

from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hsa_jax.config import Landmark, ModelConfig

Index = TypeVar("Index", int, np.ndarray, int | jax.Array)


def mark_every(cfg: ModelConfig) -> int:
  """Tokens between two marks; 0: none are inserted."""
  marked = cfg.hsa.num_groups and cfg.hsa.landmark is Landmark.TOKEN
  return cfg.hsa.chunk_size if marked else 0


def stream_length(cfg: ModelConfig, tokens: Index) -> Index:
  """Rows of the stream that so many tokens from the beginning are.

  Also the index in the stream of the token at an absolute position.
  """
  every = mark_every(cfg)
  return tokens + tokens // every if every else tokens


def stream_chunk(cfg: ModelConfig) -> int:
  """Rows of the stream from one chunk to the next."""
  return cfg.hsa.chunk_size + (1 if mark_every(cfg) else 0)


def asks_ahead(cfg: ModelConfig) -> bool:
  """Whether marks retrieve, for the chunk behind them, and not tokens."""
  return bool(mark_every(cfg)) and cfg.hsa.tokens_per_retrieval > 1


def stream_stride(cfg: ModelConfig) -> int:
  """Rows of the stream that share a retrieval."""
  return stream_chunk(cfg) if asks_ahead(cfg) else cfg.hsa.tokens_per_retrieval


def alignment(cfg: ModelConfig) -> int:
  """A suffix of the upper decoder begins at a multiple of so many tokens."""
  if not cfg.hsa.num_groups:
    return 1
  return mark_every(cfg) or cfg.hsa.tokens_per_retrieval


class Marks(NamedTuple):
  """Where marks stand in a stretch; all static.

  Attributes:
    length: tokens of the stretch.
    first: index of the first token that a mark follows; `length`: none is.
    every: tokens between two marks.
  """

  length: int
  first: int
  every: int

  @property
  def rows(self) -> int:
    """Of the stream."""
    return self.rows_of(self.length)

  def rows_of(self, count: Index) -> Index:
    """Rows of the stream that the first `count` >= 1 tokens are."""
    return count + (count - self.first - 1 + self.every) // self.every

  def insert(
    self, x: Float[Array, "B T D"], mark: Float[Array, " D"]
  ) -> Float[Array, "B U D"]:
    """The stream of tokens, with a mark where there should be one."""
    tokens = self._frames(x)
    row = jnp.broadcast_to(
      mark.astype(x.dtype), (*tokens.shape[:2], 1, x.shape[2])
    )
    return self._cut(jnp.concatenate([tokens, row], axis=2), self.rows)

  def drop(self, x: Float[Array, "B U D"]) -> Float[Array, "B T D"]:
    """The tokens of a stream."""
    tokens = self._frames(x, mark=1)[:, :, : self.every]
    return self._cut(tokens, self.length)

  def pack(self, x: Float[Array, "B U D"]) -> Float[Array, "B T W"]:
    """Each token's state and, behind it, that of its mark: W = 2 D.

    Zeros where no mark follows.
    """
    rows = self._frames(x, mark=1)
    tokens, marks = rows[:, :, : self.every], rows[:, :, self.every :]
    empty = ((0, 0), (0, 0), (self.every - 1, 0), (0, 0))
    wide = jnp.concatenate([tokens, jnp.pad(marks, empty)], axis=3)
    return self._cut(wide, self.length)

  def unpack(self, x: Float[Array, "B T W"]) -> Float[Array, "B U D"]:
    """The stream that `pack` was given."""
    tokens, marks = jnp.split(self._frames(x), 2, axis=3)
    rows = jnp.concatenate([tokens, marks[:, :, -1:]], axis=2)
    return self._cut(rows, self.rows)

  def _frames(self, x: jax.Array, mark: int = 0) -> jax.Array:
    """Whole chunks [B, C, every + mark, D], filled up on both sides."""
    before, size = self._before, self.every + mark
    after = -(before + x.shape[1]) % size
    if before or after:
      x = jnp.pad(x, ((0, 0), (before, after), (0, 0)))
    return x.reshape(x.shape[0], -1, size, x.shape[2])

  def _cut(self, frames: jax.Array, length: int) -> jax.Array:
    """What `_frames` did, undone."""
    x = frames.reshape(frames.shape[0], -1, frames.shape[3])
    return x[:, self._before : self._before + length]

  @property
  def _before(self) -> int:
    """Tokens of the first chunk that stand before the stretch."""
    return self.every - 1 - self.first
