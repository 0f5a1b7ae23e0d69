"""Activations keep the rows of the batch where parameters are split."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh, AxisType, use_abstract_mesh
from jax.sharding import PartitionSpec as P

from hsa_jax.parallel import AXES, split_rows

BATCH = P(("data", "fsdp"), None, None)


def mesh(*sizes: int) -> AbstractMesh:
  return AbstractMesh(sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def constraints(on: AbstractMesh, *shape: int, last=None) -> list[P]:
  """What is asked of the partitioner for an activation of this shape."""
  with use_abstract_mesh(on):
    traced = jax.make_jaxpr(lambda x: split_rows(x, last=last))(
      jax.ShapeDtypeStruct(shape, jnp.float32)
    )
  return [eqn.params["sharding"].spec for eqn in traced.eqns]


def test_rows_are_split_over_data_and_fsdp():
  assert constraints(mesh(2, 2, 1, 1), 8, 5, 7) == [BATCH]


def test_the_last_dimension_may_be_split_too():
  split = P(("data", "fsdp"), None, "tensor")
  assert constraints(mesh(1, 2, 1, 2), 8, 5, 6, last="tensor") == [split]
  assert constraints(mesh(1, 2, 1, 2), 8, 5, 7, last="tensor") == [BATCH]


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (8, 1, 1, 1)])
def test_nothing_is_said_where_parameters_are_whole(sizes):
  assert constraints(mesh(*sizes), 8, 5, 7, last="tensor") == []


def test_nothing_is_said_of_rows_that_do_not_divide():
  assert constraints(mesh(2, 2, 1, 1), 6, 5, 7) == []


def test_without_a_mesh_it_is_the_identity():
  x = jnp.ones((2, 3, 4))
  assert split_rows(x) is x
