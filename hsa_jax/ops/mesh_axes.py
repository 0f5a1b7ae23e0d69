"""Which axes of the mesh split an array, for what is split by hand.

The mesh is the one in use (`jax.set_mesh`). Without one, and inside a
`jax.shard_map`, nothing is left to split.
"""

import math

import jax
from jax.sharding import AxisType

# By the names of `parallel.AXES`.
ROW_AXES = ("data", "fsdp")
CONTEXT_AXIS = "context"
HEAD_AXIS = "tensor"


def can_split() -> bool:
  """Whether there is a mesh whose axes are not yet taken."""
  mesh = jax.sharding.get_abstract_mesh()
  return not mesh.empty and AxisType.Manual not in mesh.axis_types


def split_axes(batch: int, kv_heads: int) -> tuple[tuple[str, ...], str | None]:
  """Axes of the mesh that split the rows, and the axis that splits the heads.

  An axis that does not divide is left out. Query heads follow their keys.
  """
  sizes = dict(jax.sharding.get_abstract_mesh().shape)
  rows = tuple(axis for axis in ROW_AXES if axis in sizes)
  while rows and batch % math.prod(sizes[axis] for axis in rows):
    rows = rows[:-1]
  divides = HEAD_AXIS in sizes and kv_heads % sizes[HEAD_AXIS] == 0
  return rows, HEAD_AXIS if divides else None


def context_shards(length: int) -> int:
  """Devices that a sequence of `length` tokens is split over; 1: it is whole.

  `LanguageModel` fills sequences up to a length that divides.
  """
  if not can_split():
    return 1
  shards = jax.sharding.get_abstract_mesh().shape.get(CONTEXT_AXIS, 1)
  return shards if length % shards == 0 else 1
