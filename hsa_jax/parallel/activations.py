"""Where activations live on a mesh that splits parameters or sequences."""

import math

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from hsa_jax.parallel.mesh import BATCH_AXES, CONTEXT_AXIS


def split_rows(x: jax.Array, *, tensor: int | None = None) -> jax.Array:
  """Holds an activation where its rows and tokens are.

  A matrix split over `fsdp` is split where the product sums. Left alone, the
  partitioner may keep the matrix and split the stream the same way, every row
  on every device: tens of gibibytes in place of one matrix gathered.

  Nothing is said without a mesh (`jax.set_mesh`), on one that splits rows only
  (fsdp = context = tensor = 1), and of rows that do not divide.

  Args:
    x: activations, rows of the batch first, then tokens, `[B T ...]`.
    tensor: dimension that the axis `tensor` splits where it divides, counted
      from the end; None: none.
  """
  shards = _size(CONTEXT_AXIS)
  context = CONTEXT_AXIS if shards > 1 and x.shape[1] % shards == 0 else None
  return _hold(x, context, tensor)


def whole_rows(x: jax.Array, *, tensor: int | None = None) -> jax.Array:
  """Like `split_rows`, the second dimension whole: landmarks to search."""
  return _hold(x, None, tensor)


def split_chunks_evenly(x: jax.Array) -> jax.Array:
  """Chunks of all rows, `[M ...]`, shared out over every device of the rows.

  Rows and chunks in one dimension are in no order that two axes could split, so
  the partitioner would let every device of `context` encode all of them.
  """
  axes = (*BATCH_AXES, CONTEXT_AXIS)
  if _size(CONTEXT_AXIS) == 1 or x.shape[0] % _size(*axes):
    return x
  spec = P(axes, *(None,) * (x.ndim - 1))
  return jax.lax.with_sharding_constraint(x, spec)


def fill_context(tokens: jax.Array, *, chunk_size: int) -> jax.Array:
  """Tokens `[B T]` up to a length that `context` cuts between two chunks.

  What is added lies behind the sequence, where no token looks.
  """
  shards = _size(CONTEXT_AXIS)
  missing = -tokens.shape[1] % (shards * chunk_size) if shards > 1 else 0
  return jnp.pad(tokens, ((0, 0), (0, missing))) if missing else tokens


def _hold(x: jax.Array, context: str | None, tensor: int | None) -> jax.Array:
  splits = _size("fsdp", CONTEXT_AXIS, "tensor") > 1
  if not splits or x.shape[0] % _size(*BATCH_AXES):
    return x
  axes = [BATCH_AXES, context, *(None,) * (x.ndim - 2)]
  if tensor is not None and x.shape[tensor] % _size("tensor") == 0:
    axes[tensor] = "tensor"
  return jax.lax.with_sharding_constraint(x, P(*axes))


def _size(*axes: str) -> int:
  """Devices along axes of the mesh in use; 1 without one."""
  sizes = jax.sharding.get_abstract_mesh().shape
  return math.prod(sizes.get(axis, 1) for axis in axes)
