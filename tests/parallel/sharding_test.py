"""The table, and 8 devices against 1."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

from hsa_jax.config import HsaConfig, ModelConfig
from hsa_jax.models import LanguageModel
from hsa_jax.parallel import named_leaves, partition_spec

MESH = AbstractMesh((2, 2, 1, 2), ("data", "fsdp", "context", "tensor"))


@pytest.mark.parametrize(
  ("name", "shape", "spec"),
  [
    ("embedding.embedding", (264, 64), P("tensor", "fsdp")),
    ("output.kernel", (64, 264), P("fsdp", "tensor")),
    ("groups.0.block.query.kernel", (64, 64), P("fsdp", "tensor")),
    ("lower_blocks.mlp.down.kernel", (3, 128, 64), P(None, "tensor", "fsdp")),
    ("opt_state.1.mu.blocks.up.kernel", (3, 8, 8), P(None, "fsdp", "tensor")),
    ("lower_blocks.mlp_norm.scale", (3, 64), P()),
    ("encoder.cls", (64,), P()),
    (
      "kept.states.lower.memory",
      (8, 1, 3, 4, 8, 6),
      P(("data", "fsdp"), None, None, "tensor", None, None),
    ),
    ("kept.states.lower.memory", (6, 1, 3, 3, 8, 6), P()),
    (
      "kept.states.groups.0.1.tails.0",
      (8, 1, 3, 4, 64),
      P(("data", "fsdp"), None, None, None, "tensor"),
    ),
    ("kept.fitted.lower.mean", (3, 4), P()),
    ("lower_blocks.key_conv.taps", (3, 4, 64), P(None, None, "tensor")),
    ("lower_blocks.attention.log_slope", (3, 8), P()),
    ("lower_blocks.attention.step.kernel", (64, 8), P("fsdp", "tensor")),
    ("opt_state.1.count", (), P()),
    ("groups.0.block.query.kernel", (7, 64), P(None, "tensor")),
    ("groups.0.block.query.kernel", (7, 9), P()),
  ],
)  # fmt: skip
def test_first_rule_that_matches(name, shape, spec):
  assert partition_spec(name, shape, MESH) == spec


def test_a_new_matrix_must_be_placed_by_decision():
  with pytest.raises(ValueError, match="no sharding rule matches mystery"):
    partition_spec("mystery", (4, 4), MESH)
  assert partition_spec("mystery", (4,), MESH) == P()


def test_names_read_like_attributes():
  tree = {"a": [{"b.c": jnp.zeros(1)}, (jnp.zeros(2),)]}
  assert list(named_leaves(tree)) == ["a.0.b.c", "a.1.0"]


@pytest.mark.parametrize("groups", [0, 1, 2])
def test_every_matrix_of_the_model_is_split(groups):
  cfg = ModelConfig(
    num_upper_layers=2, hsa=HsaConfig(num_groups=groups), tie_embeddings=False
  )
  model = jax.eval_shape(lambda: LanguageModel(cfg, rngs=nnx.Rngs(0)))
  for name, leaf in named_leaves(model).items():
    spec = partition_spec(name, leaf.shape, MESH)
    is_matrix = name.endswith((".kernel", ".embedding"))
    assert {"fsdp", "tensor"} <= set(spec) if is_matrix else spec == P(), name


PROGRAM = """
import json, sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from hsa_jax.ops.select import select_chunks
from hsa_jax.config import *
from hsa_jax.data.pipeline import Batch
from hsa_jax.models import LanguageModel
from hsa_jax.parallel import make_mesh, place_batch
from hsa_jax.training.optimizer import make_optimizer
from hsa_jax.training.state import abstract_state, init_state
from hsa_jax.training.step import make_train_step

model = ModelConfig(
  vocab_size=40, embed_dim=16, num_lower_layers=1, num_upper_layers=1,
  num_heads=2, num_kv_heads=2, head_dim=8, mlp_dim=16, window_size=8,
  hsa=HsaConfig(chunk_size=4, top_k=2, num_memory_heads=2, landmark_dim=8,
                encoder_mlp_dim=16))
cfg = Config(model=model, mesh=MeshConfig(**json.loads(sys.argv[1])),
             optimizer=OptimizerConfig(warmup_steps=1),
             train=TrainConfig(grad_accum_steps=2, answer_loss_weight=1.0))
mesh, build = make_mesh(cfg.mesh), lambda rngs: LanguageModel(model, rngs=rngs)
tx = make_optimizer(cfg.optimizer, num_steps=10)
abstract = abstract_state(build, tx, mesh=mesh)
rng, out = np.random.default_rng(0), []
with jax.set_mesh(mesh):
  state = init_state(build, tx, seed=0, abstract=abstract)
  shardings = jax.tree.map(lambda x: x.sharding, abstract)
  step = jax.jit(make_train_step(cfg, tx, mesh=mesh), donate_argnums=0,
                 out_shardings=(shardings, None))
  for _ in range(3):
    rows = rng.integers(0, 40, (8, 25)).astype(np.int32)
    mask = (rng.random((8, 24)) < 0.3).astype(np.float32)
    batch = Batch(rows[:, :-1], rows[:, 1:], np.ones_like(mask), mask)
    state, metrics = step(state, place_batch(batch, mesh))
    out.append([float(x) for x in jax.tree.leaves(metrics)])
mesh = jax.make_mesh((jax.device_count(),), ("data",))
rows = NamedSharding(mesh, P("data"))
query, marks = (jax.ShapeDtypeStruct((8, n, 1, 4), jnp.float32, sharding=rows)
                for n in (6, 5))
select = jax.jit(lambda query, marks: select_chunks(
  query, marks, num_visible=jnp.arange(6), top_k=2))
text = select.lower(query, marks).compile().as_text()
kernel = state.model.lower_blocks.mlp.up.kernel[...]
print(json.dumps({"devices": jax.device_count(), "metrics": out,
  "gathers": text.count("all-gather"),
  "shard": kernel.addressable_shards[0].data.shape, "whole": kernel.shape}))
"""


def start_on(devices: int, **mesh: int) -> subprocess.Popen:
  """Three optimizer steps of a small model in a process of its own."""
  return subprocess.Popen(
    [sys.executable, "-c", PROGRAM, json.dumps(mesh)],
    env={
      **os.environ,
      "JAX_PLATFORMS": "cpu",
      "JAX_NUM_CPU_DEVICES": str(devices),
      "PYTHONPATH": os.getcwd(),
      # The partitioning is under test, not the speed of the program.
      "XLA_FLAGS": "--xla_backend_optimization_level=0"
      " --xla_llvm_disable_expensive_passes=true",
    },
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def result_of(process: subprocess.Popen) -> dict:
  out, err = process.communicate(timeout=300)
  assert process.returncode == 0, err[-3000:]
  return json.loads(out.splitlines()[-1])


def test_eight_devices_compute_what_one_does():
  processes = [start_on(1), start_on(8, data=2, fsdp=2, tensor=2)]
  one, eight = map(result_of, processes)
  assert (one["devices"], eight["devices"]) == (1, 8)
  np.testing.assert_allclose(eight["metrics"], one["metrics"], rtol=2e-4)
  assert eight["gathers"] == 0, "selection must stay on the device of its row"
  layers, rows, columns = eight["whole"]
  assert eight["shard"] == [layers, rows // 2, columns // 2]
