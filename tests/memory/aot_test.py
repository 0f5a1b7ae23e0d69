"""A memory of 32M tokens compiles for pods that are not here."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh

from hsa_jax.memory.layout import Layout
from hsa_jax.memory.sharded import KvPlace, Placement, abstract_sharded
from hsa_jax.types import ChunkBlock

pytestmark = pytest.mark.aot

CHUNKS, SIZE, HEADS, DIM, LANDMARK = 524_288, 64, 1, 128, 1024
TOKENS, TOP_K, QUERY_HEADS = 256, 32, 16
GIB = 1 << 30


def topology_mesh(name: str) -> Mesh:
  os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
  os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
  pytest.importorskip("libtpu")
  topology = topologies.get_topology_desc(platform="tpu", topology_name=name)
  devices = np.array(topology.devices)
  return Mesh(devices, ("memory",), axis_types=(AxisType.Auto,))


def retrieve(memory, query, read_query):
  """One group's use of the memory."""
  visible = jnp.full((TOKENS,), CHUNKS, jnp.int32)
  found = memory.search(query, num_visible=visible, top_k=TOP_K)
  weights = jax.nn.softmax(found.score, axis=-1)
  return memory.read(read_query, found, weights, sink=1)


def compile_for(function, *args, **options):
  fast: dict = {"exec_time_optimization_effort": -1.0}
  program = jax.jit(function, **options).lower(*args)
  return program.compile(compiler_options=fast)


@pytest.mark.parametrize(
  ("name", "chips"), [("v5e:4x4", 16), ("v5p:4x4x4", 64)]
)
def test_32m_tokens(name, chips):
  mesh = topology_mesh(name)
  assert mesh.size == chips
  layout = Layout(1, 1, LANDMARK, SIZE, HEADS, DIM, "bfloat16", "bfloat16")
  placement = Placement(mesh, "memory", KvPlace.PINNED_HOST)
  memory = abstract_sharded(layout, CHUNKS, placement)
  query = jax.ShapeDtypeStruct((1, TOKENS, 1, LANDMARK), jnp.float32)
  read_query = jax.ShapeDtypeStruct((1, TOKENS, QUERY_HEADS, DIM), jnp.bfloat16)
  stats = compile_for(retrieve, memory, query, read_query).memory_analysis()
  kv, landmarks = 16 * GIB / chips, GIB / chips
  assert kv <= stats.host_argument_size_in_bytes < 1.01 * kv
  assert landmarks <= stats.argument_size_in_bytes < 1.1 * landmarks + 4e6
  # The peak counts what stays in host memory too.
  peak = stats.peak_memory_in_bytes - stats.host_argument_size_in_bytes
  assert peak < landmarks + 0.1 * GIB

  def array(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.bfloat16)

  tokens = array(1, 64, SIZE, HEADS, DIM)
  block = ChunkBlock(array(1, 64, 1, LANDMARK), tokens, tokens)  # type: ignore[arg-type]
  grow = compile_for(
    lambda memory, block: memory.append(block), memory, block, donate_argnums=0
  )
  stats = grow.memory_analysis()
  assert stats.host_temp_size_in_bytes < 0.1 * kv  # written in place
  assert stats.temp_size_in_bytes < 0.1 * GIB
