"""Where activations live on a mesh that splits parameters."""

import math

import jax
from jax.sharding import PartitionSpec as P

from hsa_jax.parallel.mesh import BATCH_AXES


def split_rows(x: jax.Array, *, last: str | None = None) -> jax.Array:
  """Holds the rows of an activation where the rows of the batch are.

  A matrix split over `fsdp` is split where the product sums. Left alone, the
  partitioner may keep the matrix and split the stream the same way, every row
  on every device: tens of gibibytes in place of one matrix gathered.

  Nothing is said without a mesh (`jax.set_mesh`), on one whose parameters are
  whole (fsdp = tensor = 1), and of rows that do not divide.

  Args:
    x: activations, rows of the batch first, `[B ...]`.
    last: mesh axis of the last dimension; None: whole.
  """
  mesh = jax.sharding.get_abstract_mesh()
  sizes = dict(mesh.shape)
  if sizes.get("fsdp", 1) * sizes.get("tensor", 1) == 1:
    return x
  if x.shape[0] % math.prod(sizes[axis] for axis in BATCH_AXES):
    return x
  if last is not None and x.shape[-1] % sizes[last]:
    last = None
  spec = P(BATCH_AXES, *(None,) * (x.ndim - 2), last)
  return jax.lax.with_sharding_constraint(x, spec)
