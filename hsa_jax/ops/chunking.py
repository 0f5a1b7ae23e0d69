"""Where chunks begin and end, and which of them a token may see."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def num_visible_chunks(
  positions: Int[Array, " T"],
  *,
  chunk_size: int,
  exclude_window: int = 0,
) -> Int[Array, " T"]:
  """Number of chunks that each token may retrieve: ids `0 .. n - 1`.

  Chunk `i` is visible to token `t` iff it ended before it, `(i+1)*S <= t`; the
  chunk that holds `t` never is, not even at its last token, because its encoder
  is bidirectional.

  Args:
    positions: absolute token positions, from 0.
    chunk_size: S.
    exclude_window: W > 0 leaves the sliding window to the window: chunk `i` is
      then visible iff also its first token lies outside, `i*S <= t - W`.

  Returns:
    The count per token, int32.
  """
  visible = positions // chunk_size
  if exclude_window:
    outside = (positions - exclude_window) // chunk_size + 1
    visible = jnp.minimum(visible, jnp.maximum(outside, 0))
  return visible.astype(jnp.int32)


def split_chunks(
  hidden: Float[Array, "B T D"], *, chunk_size: int
) -> Float[Array, "B C S D"]:
  """The complete chunks of a sequence; drops the tail of `T % S` tokens."""
  batch, length, dim = hidden.shape
  num_chunks = length // chunk_size
  used = hidden[:, : num_chunks * chunk_size]
  return used.reshape(batch, num_chunks, chunk_size, dim)
