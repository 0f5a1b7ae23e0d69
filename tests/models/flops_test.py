"""Parameter and operation counts against the built model and brute force."""

import dataclasses
import functools
import math

import jax
import numpy as np
import pytest
from flax import nnx

from hsa_jax.config import (
  RECURRENT,
  BlockForm,
  GlaConfig,
  HsaConfig,
  Landmark,
  LayerConfig,
  Mamba2Config,
  Mixer,
  Mlp,
  ModelConfig,
  Norm,
  Position,
)
from hsa_jax.models import flops, language_model, mixers, parameters
from hsa_jax.ops import read
from hsa_jax.types import Selection

BASE_HSA = HsaConfig(
  num_groups=1,
  chunk_size=8,
  top_k=2,
  num_memory_heads=2,
  landmark_dim=24,
  encoder_layers=1,
  encoder_mlp_dim=40,
)
BASE = ModelConfig(
  vocab_size=48,
  embed_dim=32,
  num_lower_layers=2,
  num_upper_layers=2,
  num_heads=4,
  num_kv_heads=2,
  head_dim=6,
  mlp_dim=56,
  window_size=12,
  hsa=BASE_HSA,
)


def variant(**changes) -> ModelConfig:
  """BASE with fields of either dataclass replaced."""
  names = {f.name for f in dataclasses.fields(ModelConfig)}
  outer = {k: v for k, v in changes.items() if k in names}
  inner = {k: v for k, v in changes.items() if k not in names}
  hsa = dataclasses.replace(BASE_HSA, **inner)
  return dataclasses.replace(BASE, **outer, hsa=hsa)


FULL = LayerConfig(mixer=Mixer.FULL, position=Position.NONE)
STICK = LayerConfig(mixer=Mixer.STICK_BREAKING, position=Position.NONE)
PLAIN = LayerConfig(window=5, qk_norm=False)
MAMBA = LayerConfig(mixer=Mixer.MAMBA2, mlp=Mlp.NONE)
GLA = LayerConfig(mixer=Mixer.GLA)
MAMBA_SIZES = Mamba2Config(
  head_dim=8, state_dim=6, num_groups=2, conv_width=3, chunk_size=16
)
VARIANTS = {
  "base": {},
  "no_memory": {"num_groups": 0},
  "two_groups": {"num_groups": 2},
  "no_lower": {"num_lower_layers": 0},
  "no_encoder": {"encoder_layers": 0, "landmark": "mean"},
  "two_encoders": {"encoder_layers": 2},
  "mean": {"landmark": "mean"},
  "prenorm": {"encoder_prenorm": True},
  "landmark_norm": {"landmark_norm": True},
  "single_head": {"retrieval_heads": "single", "landmark_norm": True},
  "softmax": {"weighting": "softmax"},
  "decay": {"weighting": "softmax_decay", "num_groups": 2},
  "mass": {"weighting": "mass"},
  "sink": {"sink": 1},
  "no_qk_norm": {"qk_norm": False},
  "standard": {"residual": "standard"},
  "block_window": {"block_window": True},
  "untied": {"tie_embeddings": False},
  "blocks_of_queries": {"tokens_per_retrieval": 4},
  "landmark_token": {"landmark": "token"},
  "landmarks_ask": {"landmark": "token", "tokens_per_retrieval": 8},
  "unprojected": {"landmark_projection": False},
  "shared_retrieval": {"num_groups": 2, "groups_per_retrieval": 2},
  "windows_of_reads": {"num_upper_layers": 0, "block_window": True},
  "full": {"layers": (FULL,)},
  "stick_breaking": {"layers": (STICK,), "num_groups": 0},
  "hybrid": {"layers": (LayerConfig(), PLAIN, FULL), "num_groups": 0},
  "parallel": {"block": BlockForm.PARALLEL, "norm": Norm.LAYER},
  "parallel, no MLP": {"layers": (MAMBA,), "block": BlockForm.PARALLEL},
  "ramba": {"layers": (MAMBA,), "mamba2": MAMBA_SIZES, "residual": "plain"},
  "mamba2, windows": {"layers": (MAMBA, LayerConfig()), "num_groups": 0},
  "gla": {"layers": (GLA,), "num_groups": 0},
}


def typed(changes: dict) -> dict:
  """Strings as the enum members they name."""
  hints = {
    f.name: type(getattr(BASE_HSA, f.name))
    for f in dataclasses.fields(HsaConfig)
  }
  return {k: hints[k](v) if k in hints else v for k, v in changes.items()}


def built_size(cfg: ModelConfig) -> int:
  """Parameters of the real model, from shapes alone."""
  model = nnx.eval_shape(
    lambda: language_model.LanguageModel(cfg, rngs=nnx.Rngs(0))
  )
  leaves = jax.tree.leaves(nnx.state(model, nnx.Param))
  return sum(math.prod(leaf.shape) for leaf in leaves)


@pytest.mark.parametrize("name", VARIANTS)
def test_count_equals_built_model(name):
  cfg = variant(**typed(VARIANTS[name]))
  assert parameters.count_parameters(cfg).total == built_size(cfg)


@pytest.mark.parametrize("name", [v for v in VARIANTS if v != "ramba"])
def test_ablations_match_within_one_percent(name):
  # Wide enough that one unit of mlp_dim is well below 1% of the whole.
  changes = typed(VARIANTS[name])
  wide = {"embed_dim": 64, "head_dim": 16, "mlp_dim": 256}
  target = parameters.count_parameters(variant(**wide)).total
  matched = parameters.match_parameters(variant(**{**wide, **changes}), target)
  assert abs(built_size(matched) - target) <= 0.01 * target


def test_match_refuses_the_impossible():
  with pytest.raises(ValueError, match="more than 1%"):
    parameters.match_parameters(BASE, 100)
  with pytest.raises(ValueError, match="no block has an MLP"):
    parameters.match_parameters(variant(**typed(VARIANTS["ramba"])), 100_000)


@pytest.mark.parametrize("seq_len", [1, 7, 8, 23, 64, 100])
def test_useful_lengths_equal_sums_over_positions(seq_len):
  t = np.arange(seq_len)
  visible = t // BASE_HSA.chunk_size
  got = flops._useful_lengths(BASE, seq_len)
  np.testing.assert_allclose(
    [got.keys, got.chunks, got.slots],
    [
      np.minimum(t + 1, BASE.window_size).mean(),
      visible.mean(),
      np.minimum(visible, BASE_HSA.top_k).mean(),
    ],
    rtol=1e-12,
  )


def test_window_block_by_hand():
  cfg = variant(num_groups=0, num_lower_layers=1, num_upper_layers=0)
  parts = flops.flops_per_token(cfg, 1).useful_parts
  matrices = 32 * 24 * 2 + 32 * 12 * 2 + 3 * 32 * 56
  assert parts["lower"] == 2 * matrices + 4 * 24 * 1
  assert parts["head"] == 2 * 32 * 48


def test_a_parallel_block_by_hand():
  """The products of a sequential one, and one norm in place of two."""
  form = {"num_groups": 0, "num_lower_layers": 3, "num_upper_layers": 0}
  cfg = variant(block=BlockForm.PARALLEL, logit_scale=0.25, **form)
  heads, mlp = 32 * 24 * 2 + 32 * 12 * 2, 3 * 32 * 56
  counts = parameters.count_parameters(cfg)
  assert counts.lower == 3 * (32 + heads + 2 * 6 + mlp)
  sequential = parameters.count_parameters(variant(**form)).total
  assert counts.total == sequential - 3 * 32
  parts = flops.flops_per_token(cfg, 1).useful_parts
  assert parts["lower"] == 3 * (2 * (heads + mlp) + 4 * 24 * 1)


def test_landmark_tokens_by_hand():
  """Twenty tokens are two chunks of 8, and 22 rows with their landmarks.

  Of the landmarks the first sees no chunk and the second one, which the last
  four rows read; windows of 12 have 1 + .. + 11 + 11 * 12 keys.
  """
  cfg = variant(
    num_upper_layers=0,
    num_groups=2,
    groups_per_retrieval=2,
    block_window=True,
    landmark=Landmark.TOKEN,
    landmark_projection=False,
    landmark_dim=32,
    tokens_per_retrieval=8,
  )
  parts = flops.flops_per_token(cfg, 20).useful_parts
  window = 22 * 2 * 32 * 12 * 6 + 4 * 24 * (66 + 11 * 12)
  mlp = 22 * 6 * 32 * 56
  read = 22 * 4 * 32 * 24 + 4 * 24 * 8 * 4
  encoder = 2 * 9 * (2 * 32 * 12 * 6 + 4 * 24 * 9 + 6 * 32 * 40)
  by_hand = {
    "lower": 2 * (window + mlp),
    "encoder": encoder,
    "chunking": 16 * 4 * 32 * 12,
    "retrieval": 2 * 32,
    "reads": 2 * (window + read + mlp),
    "upper": 0,
    "head": 20 * 2 * 32 * 48,
  }
  for part, operations in by_hand.items():
    assert 20 * parts[part] == pytest.approx(operations), part


@pytest.mark.parametrize(
  ("layer", "keys"),
  [(FULL, (7 + 1) / 2), (STICK, (7 - 1) / 2), (PLAIN, 25 / 7)],
)
def test_block_of_any_kind_by_hand(layer, keys):
  """Seven tokens: 1 + .. + 7 keys, 0 + .. + 6, or 1 + 2 + 3 + 4 + 5 + 5 + 5."""
  cfg = variant(
    num_groups=0, num_lower_layers=1, num_upper_layers=0, layers=(layer,)
  )
  parts = flops.flops_per_token(cfg, 7).useful_parts
  matrices = 32 * 24 * 2 + 32 * 12 * 2 + 3 * 32 * 56
  assert parts["lower"] == pytest.approx(2 * matrices + 4 * 24 * keys)


def test_a_mamba2_block_by_hand():
  """D 32, inner 64, 8 heads of 8, two groups of state 6, filters of three."""
  cfg = variant(**typed(VARIANTS["mamba2, windows"]), mamba2=MAMBA_SIZES)
  cfg = dataclasses.replace(cfg, layers=(MAMBA,))
  projections = 2 * 32 * (64 + 64 + 12 + 12 + 8) + 2 * 64 * 32
  filters = 2 * 3 * (64 + 12 + 12)
  state = 4 * 8 * 8 * 6
  parts = flops.flops_per_token(cfg, 33)
  assert parts.useful_parts["lower"] == 2 * (projections + filters + state)
  # Three chunks of 16; of a token with each other one 2 * 12 + 2 * 64.
  chunks = 16 * 16 * 3 / 33 * (2 * 12 + 2 * 64)
  extra = parts.executed_parts["lower"] - parts.useful_parts["lower"]
  assert extra == pytest.approx(2 * chunks)
  # Nothing of such a layer grows with the context; all four are lower ones.
  far = flops.prefill_flops_per_token(cfg, 1 << 40)
  assert far == pytest.approx(2 * parts.useful_parts["lower"])


def test_a_gla_block_by_hand():
  """D 32: keys 16 wide, values 32, four heads; rank 16; an MLP of 56."""
  cfg = variant(**typed(VARIANTS["gla"]))
  projections = 2 * 32 * (16 + 16 + 32 + 32 + 16) + 2 * 16 * 16 + 2 * 32 * 32
  state, mlp = 4 * 4 * 4 * 8, 6 * 32 * 56
  parts = flops.flops_per_token(cfg, 64)
  assert parts.useful_parts["lower"] == 2 * (projections + state + mlp)
  extra = parts.executed_parts["lower"] - parts.useful_parts["lower"]
  assert extra == 2 * (64 + 16) * 2 * (16 + 32)


@pytest.mark.parametrize(
  "name", [m for m in mixers.MIXERS if m not in RECURRENT]
)
@pytest.mark.parametrize("seq_len", [1, 100, 600])
def test_keys_of_every_mixer(name, seq_len):
  """Means of what each token sees, and blocks that cover it."""
  kind = mixers.MIXERS[name]
  reach = kind.reach(BASE)
  t = np.arange(seq_len)
  seen = t + 1 if reach is None else np.minimum(t + 1, reach + 1)
  own = int(name is Mixer.STICK_BREAKING)
  useful = kind.useful_keys(BASE, seq_len)
  assert useful == pytest.approx(seen.mean() - own)
  assert kind.executed_keys(BASE, seq_len, "cpu") >= useful
  assert kind.keys_after(BASE, seq_len) == seen[-1] - own


def test_executed_keys_of_full_attention_are_pairs_of_blocks():
  kind = mixers.MIXERS[Mixer.FULL]
  # Blocks of 256: 1 + 2 + 3 pairs, the last of each are padded.
  assert kind.executed_keys(BASE, 600, "cpu") == 6 * 256 * 256 / 600


@pytest.mark.parametrize("name", list(mixers.MIXERS))
def test_bytes_of_states_are_those_that_are_made(name):
  kind = mixers.MIXERS[name]
  made = jax.eval_shape(
    lambda: kind.module(BASE, rngs=nnx.Rngs(0)).init_state(3, 50)
  )
  nbytes = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(made))
  counter = 0 if name in RECURRENT else 4
  assert kind.state_bytes(BASE, 3, 50) == nbytes - counter


@pytest.mark.parametrize("name", list(mixers.MIXERS))
def test_what_grows_with_the_context_and_what_hangs_on_all_of_it(name):
  """A recurrent layer depends on every token and has no use for room."""
  kind = mixers.MIXERS[name]
  grows = kind.state_bytes(BASE, 1, 2000) > kind.state_bytes(BASE, 1, 1000)
  assert kind.grows == grows
  assert (kind.reach(BASE) is None) == (name is not Mixer.WINDOW)


def test_executed_is_at_least_useful_for_every_part():
  for name in VARIANTS:
    counted = flops.flops_per_token(variant(**typed(VARIANTS[name])), 200)
    for part, useful in counted.useful_parts.items():
      assert counted.executed_parts[part] >= useful - 1e-9, (name, part)
    assert counted.useful == pytest.approx(sum(counted.useful_parts.values()))


def test_useful_operations_do_not_grow_with_length_except_scores():
  """Reads saturate at K chunks; only the landmark scores keep growing."""
  short, long = (
    flops.flops_per_token(BASE, n).useful_parts for n in (4096, 8192)
  )
  assert long["reads"] == pytest.approx(short["reads"], rel=1e-2)
  assert long["retrieval"] > 1.5 * short["retrieval"]


def test_forward_matches_the_compiler():
  """XLA's own count, where no loop hides operations from it."""
  cfg = variant(num_groups=0, num_lower_layers=1, num_upper_layers=0)
  model = language_model.LanguageModel(cfg, rngs=nnx.Rngs(0))
  tokens = jax.ShapeDtypeStruct((1, 96), "int32")
  compiled = jax.jit(lambda m, t: m(t)).lower(model, tokens).compile()
  counted = compiled.cost_analysis()["flops"] / 96
  executed = flops.flops_per_token(cfg, 96).executed
  # Elementwise work is in the compiler's count and not in ours.
  assert executed <= counted <= 1.6 * executed


@pytest.mark.parametrize(
  "changes",
  [
    {"layers": (MAMBA,), "mamba2": Mamba2Config(chunk_size=96)},
    {"layers": (GLA,), "gla": GlaConfig(chunk_size=96)},
  ],
)
def test_recurrence_matches_the_compiler(changes):
  """One chunk, for a loop hides operations; from a state that is not zero."""
  cfg = variant(num_groups=0, num_lower_layers=1, num_upper_layers=0, **changes)
  model = language_model.LanguageModel(cfg, rngs=nnx.Rngs(0))
  tokens = jax.ShapeDtypeStruct((1, 96), "int32")
  program = jax.jit(lambda m, t, carry: m.lower(t, carry))
  compiled = program.lower(model, tokens, model.init_carry(1)).compile()
  counted = compiled.cost_analysis()["flops"] / 96
  executed = flops.flops_per_token(cfg, 96).executed_parts["lower"]
  assert executed <= counted <= 1.6 * executed


def test_a_dense_read_multiplies_what_its_tiles_see():
  """XLA's own count of the causal read, which is cut into tiles."""
  length, size, heads, dim = 512, 64, 4, 16
  chunks = length // size
  hsa = dataclasses.replace(
    BASE_HSA, implementation="dense", chunk_size=size, num_memory_heads=1
  )
  cfg = dataclasses.replace(BASE, hsa=hsa)
  slots = flops.executed_lengths(cfg, length, "cpu").slots
  # Tiles of 128 tokens see 1, 3, 5 and 7 chunks.
  assert slots == (1 + 3 + 5 + 7) / 4

  def array(*shape, dtype="float32"):
    return jax.ShapeDtypeStruct((1, *shape), dtype)

  keys = array(chunks, size, 1, dim)
  picked = Selection(
    array(length, 1, 2, dtype="int32"),
    array(length, 1, 2),
    array(length, 1, 2, dtype="bool"),
  )
  program = jax.jit(
    functools.partial(read.read_chunks, causal=True, implementation="dense")
  ).lower(array(length, heads, dim), keys, keys, picked, array(length, 1, 2))
  counted = program.compile().cost_analysis()["flops"] / length
  products = 4 * heads * dim * size * slots
  # Softmax and weighting are a few operations for each score.
  assert products <= counted <= products + 20 * heads * size * slots


def test_prefill_is_what_a_prefix_costs():
  parts = flops.flops_per_token(BASE, 100_000).useful_parts
  wanted = parts["lower"] + parts["encoder"] + parts["chunking"]
  assert flops.prefill_flops_per_token(BASE) == pytest.approx(wanted, rel=1e-3)
