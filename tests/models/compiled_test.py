"""Functions of a module, compiled for its structure, applied to its arrays."""

import gc
import weakref

import jax
import numpy as np
from flax import nnx

from hsa_jax.models.compiled import jit_of_module
from hsa_jax.models.layers import RMSNorm, stack


def build(dim: int, scale: float) -> RMSNorm:
  norm = RMSNorm(dim, eps=0.0)
  norm.scale = nnx.Param(norm.scale[...] * scale)
  return norm


@jit_of_module
def scaled(norm, x):
  return norm.scale[...] * x


def test_equal_modules_share_a_program_and_keep_their_arrays():
  one, two = build(2, 3.0), build(2, 5.0)
  for _ in range(2):
    assert np.asarray(scaled(one, 1.0)).tolist() == [3.0, 3.0]
    assert np.asarray(scaled(two, 1.0)).tolist() == [5.0, 5.0]
  assert len(scaled.programs) == 1
  assert [p._cache_size() for p in scaled.programs.values()] == [1]


def test_inside_another_program_it_melts_into_it():
  norms = stack(lambda key: build(2, 2.0), jax.random.key(0), 3)
  out = jax.jit(jax.vmap(lambda norm: scaled(norm, 2.0)))(norms)
  np.testing.assert_array_equal(out, np.full((3, 2), 4.0))


def test_a_module_is_not_kept_alive():
  norm = build(2, 1.0)
  scaled(norm, 1.0)
  gone = weakref.ref(norm)
  del norm
  gc.collect()
  assert gone() is None
