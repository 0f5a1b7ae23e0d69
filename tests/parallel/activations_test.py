"""Activations keep the rows of the batch where parameters are split."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh, AxisType, use_abstract_mesh
from jax.sharding import PartitionSpec as P

from hsa_jax.parallel import (
  AXES,
  fill_context,
  split_chunks_evenly,
  split_rows,
  whole_rows,
)

BATCH = P(("data", "fsdp"), None, None)


def mesh(*sizes: int) -> AbstractMesh:
  return AbstractMesh(sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def constraints(
  on: AbstractMesh, *shape: int, hold=split_rows, **options
) -> list[P]:
  """What is asked of the partitioner for an activation of this shape."""
  with use_abstract_mesh(on):
    traced = jax.make_jaxpr(lambda x: hold(x, **options))(
      jax.ShapeDtypeStruct(shape, jnp.float32)
    )
  return [eqn.params["sharding"].spec for eqn in traced.eqns]


def test_rows_are_split_over_data_and_fsdp():
  assert constraints(mesh(2, 2, 1, 1), 8, 5, 7) == [BATCH]


def test_tokens_are_split_over_context_where_they_divide():
  both = P(("data", "fsdp"), "context", None)
  assert constraints(mesh(2, 1, 2, 1), 8, 6, 7) == [both]
  assert constraints(mesh(2, 1, 2, 1), 8, 5, 7) == [BATCH]
  assert constraints(mesh(2, 1, 2, 1), 8, 6, 7, hold=whole_rows) == [BATCH]


def test_heads_are_split_over_tensor_where_they_divide():
  heads = P(("data", "fsdp"), None, "tensor", None)
  rows = P(("data", "fsdp"), None, None, None)
  assert constraints(mesh(1, 1, 1, 2), 8, 5, 2, 7, tensor=-2) == [heads]
  assert constraints(mesh(1, 1, 1, 4), 8, 5, 2, 7, tensor=-2) == [rows]


def test_chunks_are_shared_out_over_context_too():
  every = P(("data", "fsdp", "context"), None, None)
  hold = split_chunks_evenly
  assert constraints(mesh(2, 1, 2, 1), 12, 4, 7, hold=hold) == [every]
  assert constraints(mesh(2, 1, 2, 1), 10, 4, 7, hold=hold) == []
  assert constraints(mesh(2, 2, 1, 1), 12, 4, 7, hold=hold) == []


@pytest.mark.parametrize(
  ("length", "filled"), [(1, 24), (24, 24), (25, 48), (53, 72)]
)
def test_sequences_are_filled_up_to_whole_chunks_a_device(length, filled):
  tokens = jnp.ones((2, length), jnp.int32)
  with use_abstract_mesh(mesh(1, 1, 8, 1)):
    got = fill_context(tokens, chunk_size=3)
  assert got.shape == (2, filled) and int(got.sum()) == 2 * length
  assert fill_context(tokens, chunk_size=3) is tokens


def test_the_last_dimension_may_be_split_too():
  split = P(("data", "fsdp"), None, "tensor")
  assert constraints(mesh(1, 2, 1, 2), 8, 5, 6, tensor=-1) == [split]
  assert constraints(mesh(1, 2, 1, 2), 8, 5, 7, tensor=-1) == [BATCH]


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (8, 1, 1, 1)])
def test_nothing_is_said_where_parameters_are_whole(sizes):
  assert constraints(mesh(*sizes), 8, 5, 7, tensor=-1) == []


def test_nothing_is_said_of_rows_that_do_not_divide():
  assert constraints(mesh(2, 2, 1, 1), 6, 5, 7) == []


def test_without_a_mesh_it_is_the_identity():
  x = jnp.ones((2, 3, 4))
  assert split_rows(x) is x
