"""The TPU's window kernel, interpreted: forward, gradient, cache, mesh."""

import functools
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hsa_jax.ops import mesh_axes, reference
from hsa_jax.ops.window import choose_window, window_attention
from hsa_jax.ops.window_splash import splash_window
from hsa_jax.parallel import AXES, BATCH_AXES

ROOT = pathlib.Path(__file__).parents[2]


def inputs(length, past=0, heads=4, kv_heads=2, dim=16, batch=2):
  keys = jax.random.split(jax.random.key(0), 3)
  query = jax.random.normal(keys[0], (batch, length, heads, dim))
  shape = (batch, past + length, kv_heads, dim)
  return query, *(jax.random.normal(key, shape) for key in keys[1:])


CASES = [
  # length, past, heads, kv_heads, window: odd, one tile, several blocks
  (5, 0, 2, 1, 3),
  (200, 77, 4, 2, 150),
  *(
    pytest.param(*case, marks=pytest.mark.slow)
    for case in (
      (128, 0, 2, 2, 128),
      (129, 0, 4, 1, 1),
      (640, 0, 2, 1, 513),
      (300, 512, 2, 2, 4_000),
    )
  ),
]


@pytest.mark.parametrize(("length", "past", "heads", "kv", "window"), CASES)
def test_forward_and_gradient_equal_the_reference(
  length, past, heads, kv, window
):
  qkv = inputs(length, past, heads, kv, batch=1)
  upstream = jax.random.normal(jax.random.key(1), qkv[0].shape)
  attend = functools.partial(splash_window, window=window, interpret=True)
  slow = functools.partial(reference.window_attention, window=window)

  @functools.partial(jax.jit, static_argnums=0)
  def both(function, args):
    out, pull = jax.vjp(function, *args)
    return out, *pull(upstream)

  got, expected = both(attend, qkv), both(slow, qkv)
  assert got[0].dtype == qkv[0].dtype
  for a, b in zip(got, expected, strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_empty_cache_slots_are_never_read():
  query, key, value = inputs(70, past=20, batch=1)
  got = window_attention(
    query,
    key.at[:, :13].set(1e4),
    value.at[:, :13].set(1e4),
    window=30,
    first_valid=jnp.int32(13),
    implementation="splash",
  )
  expected = window_attention(query, key[:, 13:], value[:, 13:], window=30)
  np.testing.assert_allclose(got, expected, atol=2e-6)


@pytest.mark.parametrize(
  ("asked", "platform", "length", "has_limit", "name", "reason"),
  [
    ("auto", "tpu", 4096, False, "splash", "a TPU, a fixed window"),
    ("auto", "tpu", 4096, True, "banded", "train.window_schedule"),
    ("auto", "tpu", 1, False, "banded", "as in decode"),
    ("auto", "gpu", 4096, False, "banded", "this is a gpu"),
    ("auto", "cpu", 4096, False, "banded", "this is a cpu"),
    ("splash", "tpu", 1, False, "splash", "asked for"),
    ("reference", "tpu", 4096, False, "reference", "asked for"),
  ],
)
def test_the_choice_has_a_reason(
  asked, platform, length, has_limit, name, reason
):
  choice = choose_window(
    asked, platform=platform, length=length, has_limit=has_limit
  )
  assert choice.name == name and reason in choice.reason


@pytest.mark.parametrize(
  ("platform", "has_limit", "message"),
  [("tpu", True, "train.window_schedule"), ("gpu", False, "for TPUs")],
)
def test_asked_for_it_works_or_raises(platform, has_limit, message):
  with pytest.raises(ValueError, match=message):
    choose_window("splash", platform=platform, length=9, has_limit=has_limit)


def test_axes_have_the_names_of_the_mesh():
  assert mesh_axes.ROW_AXES == BATCH_AXES
  assert mesh_axes.HEAD_AXIS in AXES
  assert mesh_axes.CONTEXT_AXIS in AXES


ON_A_MESH = """
import jax, jax.numpy as jnp, numpy as np
from hsa_jax.config import MeshConfig
from hsa_jax.ops.window import window_attention
from hsa_jax.ops.mesh_axes import split_axes
from hsa_jax.parallel import make_mesh
from tests.ops.window_splash_test import inputs

qkv = inputs(130, past=3, heads=4, kv_heads=2, batch=4)

def loss(query, keys, values, name):
  out = window_attention(query, keys, values, window=9, implementation=name)
  return jnp.sum(jnp.sin(out)), out

grad = jax.grad(loss, argnums=(0, 1, 2), has_aux=True)
expected = jax.tree.leaves(jax.jit(grad, static_argnums=3)(*qkv, "banded"))
meshes = {
  MeshConfig(2, 2, 1, 2): (("data", "fsdp"), "tensor"),
  MeshConfig(2, 1, 1, 4): (("data", "fsdp"), None),  # two heads of keys
  MeshConfig(2, 4, 1, 1): (("data",), "tensor"),  # four rows
}
for cfg, axes in meshes.items():
  with jax.set_mesh(make_mesh(cfg)):
    assert split_axes(4, 2) == axes, (cfg, split_axes(4, 2))
    got = jax.tree.leaves(jax.jit(grad, static_argnums=3)(*qkv, "splash"))
  for a, b in zip(got, expected, strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)
"""


@pytest.mark.slow
def test_any_mesh_gives_the_same():
  done = subprocess.run(
    [sys.executable, "-c", ON_A_MESH],
    cwd=ROOT,
    env={**os.environ, "JAX_NUM_CPU_DEVICES": "8", "JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
    timeout=900,
  )
  assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.aot
@pytest.mark.parametrize(
  ("name", "num_slices", "shape"),
  [("v5e:4x4", 1, (2, 4, 1, 2)), ("v5e:2x4", 2, (2, 8, 1, 1))],
)
def test_auto_compiles_to_the_kernel_on_tpus(name, num_slices, shape):
  os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
  os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
  pytest.importorskip("libtpu")
  from jax.experimental import topologies
  from jax.sharding import NamedSharding
  from jax.sharding import PartitionSpec as P

  from hsa_jax.config import MeshConfig
  from hsa_jax.parallel import describe_mesh, make_mesh

  several = {"num_slices": num_slices} if num_slices > 1 else {}
  topology = topologies.get_topology_desc(
    platform="tpu", topology_name=name, **several
  )
  mesh = make_mesh(MeshConfig(*shape), devices=topology.devices)
  assert describe_mesh(mesh).count("slices") == 2 * (num_slices > 1)
  spec = NamedSharding(mesh, P(BATCH_AXES, None, "tensor"))
  query, keys = (
    jax.ShapeDtypeStruct((16, 1024, n, 64), jnp.bfloat16, sharding=spec)
    for n in (16, 4)
  )

  def loss(query, keys, values):
    out = window_attention(query, keys, values, window=513)
    return jnp.sum(out.astype(jnp.float32))

  with jax.set_mesh(mesh):
    lowered = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(
      query, keys, keys
    )
  options: dict = {"exec_time_optimization_effort": -1.0}
  text = lowered.compile(compiler_options=options).as_text()
  assert text.count("tpu_custom_call") >= 3  # forward, dq, dk and dv
  assert "all-gather" not in text
