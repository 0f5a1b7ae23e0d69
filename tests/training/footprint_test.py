"""Bytes per device: exact where they can be, in proportion elsewhere."""

import dataclasses
import math

import jax
import pytest
from flax import nnx

from hsa_jax.config import (
  BlockForm,
  Config,
  DataConfig,
  GlaConfig,
  HsaConfig,
  InitialState,
  InitialStateConfig,
  LayerConfig,
  MeshConfig,
  Mixer,
  ModelConfig,
  Remat,
  StageConfig,
  TrainConfig,
)
from hsa_jax.models import LanguageModel
from hsa_jax.ops import read
from hsa_jax.parallel import named_leaves
from hsa_jax.training.footprint import (
  footprint,
  mesh_of,
  state_shapes,
  unsplit,
)

MODEL = ModelConfig(
  vocab_size=512,
  embed_dim=32,
  num_lower_layers=2,
  num_upper_layers=2,
  num_heads=4,
  num_kv_heads=4,
  head_dim=8,
  mlp_dim=64,
  window_size=16,
  compute_dtype="bfloat16",
  remat=Remat.BLOCK,
  hsa=HsaConfig(chunk_size=8, top_k=2, landmark_dim=32, encoder_mlp_dim=64),
)
STAGE = StageConfig(num_steps=500, seq_len=64, batch_size=16)


def config(mesh: MeshConfig | None = None, parts: int = 1, **model) -> Config:
  return Config(
    model=dataclasses.replace(MODEL, **model),
    mesh=mesh or MeshConfig(),
    data=DataConfig(stages=(STAGE,)),
    train=TrainConfig(grad_accum_steps=parts),
  )


def needed(cfg: Config, devices: int = 8):
  mesh = mesh_of(cfg, devices)
  return footprint(cfg, STAGE, state_shapes(cfg), mesh, backend="tpu")


def whole_parameters() -> int:
  model = jax.eval_shape(lambda: LanguageModel(MODEL, rngs=nnx.Rngs(0)))
  return sum(4 * math.prod(x.shape) for x in named_leaves(model).values())


def test_whole_parameters_are_those_of_the_built_model():
  got = needed(config())
  assert got.parameters == got.gradients == whole_parameters()
  # Two moments like the parameters, and two counters.
  assert got.optimizer == 2 * got.parameters + 8


def test_states_that_a_step_leaves_to_the_next_are_counted():
  """Sixteen rows over eight devices, two layers with a head of 8 x 4 each."""
  layers = (LayerConfig(mixer=Mixer.GLA), LayerConfig())
  gla = GlaConfig(num_heads=1, expand_keys=0.25, expand_values=0.125)
  plain = config(layers=layers, gla=gla)
  passing = dataclasses.replace(
    plain,
    train=TrainConfig(
      initial_state=InitialStateConfig(mode=InitialState.STATE_PASSING)
    ),
  )
  kept = needed(passing).optimizer - needed(plain).optimizer
  assert kept == 2 * 2 * (8 * 4) * 4


def test_split_parameters_by_hand():
  """Every matrix in 8 parts; vectors whole."""
  cfg = config(MeshConfig(data=1, fsdp=4, tensor=2))
  vectors = sum(
    4 * math.prod(leaf.shape)
    for name, leaf in named_leaves(state_shapes(cfg).model).items()
    if not name.endswith((".kernel", ".embedding"))
  )
  matrices = whole_parameters() - vectors
  assert needed(cfg).parameters == vectors + matrices // 8
  assert unsplit(state_shapes(cfg), mesh_of(cfg, 8)) == []


def test_matrices_that_fsdp_does_not_divide_are_named():
  cfg = config(MeshConfig(data=1, fsdp=-1))
  rows = unsplit(state_shapes(cfg), mesh_of(cfg, 64))
  assert "lower_blocks.mlp.up.kernel" in {row.name for row in rows}
  assert unsplit(state_shapes(cfg), mesh_of(config(), 64)) == []


def test_logits_by_hand():
  """Three float32 copies of two rows of 64 tokens, a half of the ids each."""
  got = needed(config(MeshConfig(data=-1, tensor=2)))
  assert got.head == 3 * 4 * (4 * 64) * 512 // 2


def test_kept_activations_by_hand():
  """4 window blocks, a read and the encoder; keys, values; what was read."""
  got = needed(config())
  token = 6 * 2 * 32 + 2 * 2 * 8 + 9 * 2 + 2 * 4 * 8
  assert got.saved == 2 * 64 * token


def test_a_parallel_block_keeps_half_of_the_streams():
  sides = (BlockForm.SEQUENTIAL, BlockForm.PARALLEL)
  one, two = (needed(config(remat=Remat.NONE, block=form)) for form in sides)
  # Four blocks; two streams of 32 less in each.
  assert one.saved - two.saved == 2 * 64 * 4 * 2 * (2 * 32)


def test_keeping_everything_costs_more_than_recomputing():
  none, block, offload = (needed(config(remat=remat)) for remat in Remat)
  assert offload.saved < block.saved
  assert none.saved > 5 * block.saved
  assert none.parameters == block.parameters


def test_a_long_dense_read_keeps_one_tile(monkeypatch):
  """512 tokens are 4 tiles of 128, of which the last sees every chunk."""
  stage = dataclasses.replace(STAGE, seq_len=512)

  def block(limit):
    monkeypatch.setattr(read, "DENSE_ROW_BYTES", limit)
    cfg = config(mlp_dim=8)
    mesh = mesh_of(cfg, 8)
    return footprint(cfg, stage, state_shapes(cfg), mesh, backend="tpu").block

  whole, tiles = block(2**40), block(0)
  scores = 3 * 4 * 4 * 2 * 512  # copies, bytes, heads, tokens
  keys = 8 * (15 + 31 + 47 + 63) / 4
  assert whole - tiles == scores * (keys - 128)


def test_offloaded_inputs_are_moved_and_not_lost():
  """Six blocks, of which the inputs of two are on their way."""
  block, offload = (
    needed(config(remat=remat)) for remat in (Remat.BLOCK, Remat.OFFLOAD)
  )
  assert block.host == 0
  one = 2 * 64 * 2 * 32
  assert offload.host == 6 * one
  assert offload.saved == block.saved - 4 * one


def test_an_offloaded_optimizer_comes_for_the_update():
  near = config()
  train = dataclasses.replace(near.train, offload_optimizer=True)
  got, far = needed(near), needed(dataclasses.replace(near, train=train))
  assert (far.optimizer, far.host) == (0, got.optimizer)
  fixed = far.parameters + far.saved
  update = far.gradients + max(far.block, got.optimizer)
  assert far.total == fixed + max(far.head, update)


def test_micro_batches_divide_activations_alone():
  one, two = needed(config()), needed(config(parts=2))
  assert (two.saved, two.head) == (one.saved // 2, one.head // 2)
  assert two.parameters == one.parameters


def test_context_divides_the_tokens_of_a_row():
  """Two rows a device, whole; or eight rows in four parts each."""
  whole = needed(config(MeshConfig(data=-1)))
  split = needed(config(MeshConfig(data=2, context=4)))
  assert (split.head, split.saved) == (whole.head, whole.saved)
  assert split.parameters == whole.parameters


def test_gradients_or_logits_whichever_is_more():
  got = needed(config())
  fixed = got.parameters + got.optimizer + got.saved
  assert got.total == fixed + max(got.head, got.gradients + got.block)


@pytest.mark.parametrize("groups", [0, 2])
def test_other_shapes_of_the_model(groups):
  hsa = dataclasses.replace(MODEL.hsa, num_groups=groups)
  for remat in Remat:
    got = needed(config(hsa=hsa, remat=remat))
    assert min(got[:6]) > 0
