"""A number that says whether two runs saw the same batch."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, UInt32


def token_hash(tokens: Int[Array, "B T"]) -> UInt32[Array, ""]:
  """32 bits of a batch's ids and their places.

  A sum of mixed words, modulo 2**32: the same on every mesh, in whatever order
  devices add. Equal batches have equal hashes; of different ones, one pair in
  four thousand million has.

  Args:
    tokens: ids of the whole batch.
  """
  place = jax.lax.broadcasted_iota(jnp.uint32, tokens.shape, 0)
  place = place * jnp.uint32(tokens.shape[1])
  place += jax.lax.broadcasted_iota(jnp.uint32, tokens.shape, 1)
  word = _mix(tokens.astype(jnp.uint32) + _mix(place))
  return jnp.sum(word, dtype=jnp.uint32)


def _mix(word: jax.Array) -> jax.Array:
  """The finalizer of MurmurHash3: every bit out depends on every bit in."""
  for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
    word = (word ^ (word >> shift)) * jnp.uint32(factor)
  return word ^ (word >> 16)
