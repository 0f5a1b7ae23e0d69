"""The cache of a layer that sees the whole context."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int


class KvCache(NamedTuple):
  """Keys (rotated, where they are) and values of a whole context, with room.

  `length` counts the tokens in it; what lies behind them is never read.
  """

  keys: Float[Array, "B U G H"]
  values: Float[Array, "B U G H"]
  length: Int[Array, ""]

  def extended(self, keys: jax.Array, values: jax.Array) -> "KvCache":
    """With those of a stretch behind its tokens; `length` is left as it is."""
    return self._replace(
      keys=write(self.keys, keys, self.length),
      values=write(self.values, values, self.length),
    )


def write(
  room: Float[Array, "B U G H"],
  new: Float[Array, "B T G H"],
  start: Int[Array, ""],
) -> Float[Array, "B U G H"]:
  """`room` with `new` from `start` on; what lies beyond its end is filling.

  A slice that runs over the end would be moved back, over what is there.
  """
  new = new[:, : room.shape[1]]
  length = new.shape[1]
  first = jnp.minimum(start, room.shape[1] - length)
  late = start - first
  old = lax.dynamic_slice_in_dim(room, first, length, axis=1)
  fresh = (jnp.arange(length) >= late)[None, :, None, None]
  new = jnp.where(fresh, jnp.roll(new, late, axis=1), old)
  return lax.dynamic_update_slice_in_dim(room, new, first, axis=1)
