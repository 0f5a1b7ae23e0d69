"""Keys and values as stored, and back.

int8 has one scale per chunk and memory head, for keys and values each: the
largest absolute value becomes 127.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from hsa_jax.memory.layout import KvDtype, Layout
from hsa_jax.types import ChunkBlock


class Stored(NamedTuple):
  """Fields of records, chunk by chunk: `[C B ...]`, or `[B C ...]` gathered.

  `scales` [... 2 G] float32 belongs to int8; None otherwise.
  """

  keys: Array
  values: Array
  scales: Array | None


@functools.partial(jax.jit, static_argnames="kv_dtype")
def encode(block: ChunkBlock, *, kv_dtype: KvDtype) -> tuple[Array, Stored]:
  """Landmarks `[C B G R]` and fields of the records `[C B ...]`."""
  landmarks, keys, values = (jnp.swapaxes(x, 0, 1) for x in block)
  if kv_dtype is KvDtype.INT8:
    keys, key_scale = _to_int8(keys)
    values, value_scale = _to_int8(values)
    scales = jnp.stack([key_scale, value_scale], axis=2)
    return landmarks, Stored(keys, values, scales)
  if kv_dtype is KvDtype.BFLOAT16:
    keys, values = keys.astype(jnp.bfloat16), values.astype(jnp.bfloat16)
  return landmarks, Stored(keys, values, None)


def decode(stored: Stored, dtype: jnp.dtype) -> tuple[Array, Array]:
  """Keys and values `[B C S G H]` of gathered records, for use under jit."""
  keys, values, scales = stored
  if scales is None:
    return keys.astype(dtype), values.astype(dtype)
  wide = scales[:, :, :, None, :, None]  # [B C 2 1 G 1]
  return (
    (keys * wide[:, :, 0]).astype(dtype),
    (values * wide[:, :, 1]).astype(dtype),
  )


def to_records(stored: Stored, layout: Layout) -> np.ndarray:
  """Records `[C B]` of a block, in a new array."""
  keys, values, scales = stored
  records = np.empty(keys.shape[:2], layout.record)
  records["keys"], records["values"] = np.asarray(keys), np.asarray(values)
  if scales is not None:
    records["scales"] = np.asarray(scales)
  return records


def from_records(records: np.ndarray) -> Stored:
  """Fields of gathered records `[B C]`, contiguous."""
  names = records.dtype.names or ()
  return Stored(
    np.ascontiguousarray(records["keys"]),  # type: ignore[arg-type]
    np.ascontiguousarray(records["values"]),  # type: ignore[arg-type]
    records["scales"].copy() if "scales" in names else None,  # type: ignore[arg-type]
  )


def _to_int8(x: Array) -> tuple[Array, Array]:
  """`[C B S G H]` as integers, and the scale `[C B G]` of each head."""
  x = x.astype(jnp.float32)
  scale = jnp.max(jnp.abs(x), axis=(2, 4)) / 127
  safe = jnp.where(scale > 0, scale, 1.0)[:, :, None, :, None]
  return jnp.round(x / safe).astype(jnp.int8), scale
