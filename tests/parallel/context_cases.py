"""Every mesh of eight devices computes what one does; run by `context_test.py`.

Rows are odd in length, parts end inside windows, and a window is longer than a
part.
"""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from hsa_jax.config import (
  Landmark,
  MeshConfig,
  ModelConfig,
  Position,
  Remat,
  Residual,
  RetrievalHeads,
  Weighting,
  WindowOverlap,
)
from hsa_jax.models import LanguageModel
from hsa_jax.ops import reference
from hsa_jax.ops.loss import cross_entropy
from hsa_jax.ops.window import window_attention
from hsa_jax.parallel import AXES, make_mesh, place_batch, tree_shardings
from tests.models.helpers import DRT, tiny

ROWS, LENGTH = 8, 53
MESHES = [
  sizes
  for sizes in itertools.product((1, 2, 4, 8), repeat=len(AXES))
  if math.prod(sizes) == 8
]
FEW = [(1, 1, 8, 1), (2, 1, 4, 1), (1, 2, 2, 2), (1, 1, 1, 8)]
MODELS = {
  "hsa": tiny(window_size=9),
  "gather": tiny(window_size=9, hsa_implementation="gather"),
  "nsa": tiny(window_size=9, hsa_weighting=Weighting.MASS, hsa_sink=1),
  "retrieval_every_3": tiny(
    hsa_tokens_per_retrieval=3,
    hsa_retrieval_heads=RetrievalHeads.SINGLE,
    hsa_block_window=True,
    hsa_landmark=Landmark.MEAN,
    hsa_residual=Residual.STANDARD,
  ),
  "no_overlap": tiny(
    position=Position.NONE,
    remat=Remat.BLOCK,
    hsa_window_overlap=WindowOverlap.EXCLUDE,
    hsa_landmark_norm=True,
  ),
  "landmark_tokens": dataclasses.replace(DRT, window_size=9),
  "window_only": tiny(window_size=21, hsa_num_groups=0),
}


def loss_and_gradients(cfg: ModelConfig, sizes: tuple[int, ...]):
  """Of one model and one batch on a mesh, as arrays of the host."""
  count = math.prod(sizes)
  mesh = make_mesh(MeshConfig(*sizes), devices=jax.devices()[:count])
  model = LanguageModel(cfg, rngs=nnx.Rngs(0))
  model = jax.device_put(model, tree_shardings(model, mesh))
  rows = np.random.default_rng(1).integers(0, 40, (ROWS, LENGTH + 1))
  batch = place_batch((rows[:, :-1], rows[:, 1:]), mesh)

  def loss(model, batch):
    return jnp.mean(cross_entropy(model(batch[0]), batch[1]))

  with jax.set_mesh(mesh):
    out = jax.jit(jax.value_and_grad(loss))(model, batch)
  return jax.device_get(out)


@pytest.fixture(scope="module")
def expected():
  known = {}

  def of(name):
    if name not in known:
      known[name] = loss_and_gradients(MODELS[name], (1, 1, 1, 1))
    return known[name]

  return of


def check(name, sizes, expected):
  got = loss_and_gradients(MODELS[name], sizes)
  assert_same(got, expected(name), f"{name} {sizes}")


def assert_same(got, want, label):
  """Loss and every gradient within 1e-5, and not all of them zeros."""
  (got_loss, got), (want_loss, want) = got, want
  np.testing.assert_allclose(got_loss, want_loss, atol=1e-5, err_msg=label)
  leaves = jax.tree_util.tree_leaves_with_path(want)
  assert any(np.abs(leaf).max() > 1e-3 for _, leaf in leaves)
  for (path, leaf), other in zip(leaves, jax.tree.leaves(got), strict=True):
    where = f"{label} {jax.tree_util.keystr(path)}"
    np.testing.assert_allclose(other, leaf, atol=1e-5, err_msg=where)


@pytest.mark.parametrize("sizes", FEW)
def test_hsa(sizes, expected):
  check("hsa", sizes, expected)


@pytest.mark.parametrize("name", [name for name in MODELS if name != "hsa"])
def test_other_models(name, expected):
  check(name, (2, 1, 4, 1), expected)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", MESHES)
@pytest.mark.parametrize("name", MODELS)
def test_every_mesh(name, sizes, expected):
  check(name, sizes, expected)


@pytest.mark.parametrize("implementation", ["banded", "splash"])
@pytest.mark.parametrize(
  ("shards", "window"), [(2, 5), (4, 16), (8, 20), (8, 1), (8, 500)]
)
def test_the_window_looks_over_borders(shards, window, implementation):
  """Windows of one token, of several parts, and longer than the sequence."""
  keys = jax.random.split(jax.random.key(0), 3)
  query = jax.random.normal(keys[0], (2, 48, 4, 8))
  key, value = (jax.random.normal(k, (2, 48, 2, 8)) for k in keys[1:])
  mesh = make_mesh(MeshConfig(1, 1, shards, 1), devices=jax.devices()[:shards])
  with jax.set_mesh(mesh):
    got = jax.jit(
      lambda *x: window_attention(
        *x, window=window, implementation=implementation
      )
    )(query, key, value)
  want = reference.window_attention(query, key, value, window=window)
  np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("limit", [1, 4, 11])
def test_a_schedule_narrows_the_window_over_borders(limit):
  keys = jax.random.split(jax.random.key(0), 3)
  query, key, value = (jax.random.normal(k, (1, 24, 2, 8)) for k in keys)
  mesh = make_mesh(MeshConfig(1, 1, 8, 1))
  with jax.set_mesh(mesh):
    got = jax.jit(lambda *x: window_attention(*x[:3], window=11, limit=x[3]))(
      query, key, value, jnp.asarray(limit)
    )
  want = reference.window_attention(query, key, value, window=limit)
  np.testing.assert_allclose(got, want, atol=1e-5)


def test_neighbours_pass_on_the_halo_and_no_more():
  """The compiled window moves W - 1 keys, and gathers nothing."""
  mesh = make_mesh(MeshConfig(1, 1, 8, 1))
  split = NamedSharding(mesh, P(None, "context"))
  shape = jax.ShapeDtypeStruct((1, 256, 2, 8), jnp.float32, sharding=split)
  with jax.set_mesh(mesh):
    window = jax.jit(lambda *x: window_attention(*x, window=9))
    text = window.lower(shape, shape, shape).compile().as_text()
  assert "all-gather" not in text and "f32[1,8,2,8]" in text
  assert text.count("collective-permute(") == 2
