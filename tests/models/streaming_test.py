"""T4: any split of the input gives the full forward's answer."""

import jax.numpy as jnp
import pytest

from hsa_jax.config import (
  BlockForm,
  LayerConfig,
  Norm,
  Position,
  Residual,
  RetrievalHeads,
)
from tests.models.helpers import (
  FULL,
  GLA,
  LOCAL,
  MAMBA,
  NOPE,
  STICK,
  assert_close,
  build,
  encode,
  hidden_of,
  lower,
  random_tokens,
  run,
  tiny,
  upper,
)

LENGTH = 23
VARIANTS = {
  "two groups": {},
  "window in the block, one retrieval head, absolute positions": {
    "hsa_block_window": True,
    "hsa_retrieval_heads": RetrievalHeads.SINGLE,
    "hsa_landmark_norm": True,
    "position": Position.ABSOLUTE_ROPE,
  },
  "no positions, no qk norm, untied head": {
    "position": Position.NONE,
    "qk_norm": False,
    "hsa_qk_norm": False,
    "tie_embeddings": False,
  },
  "attention and MLP side by side, LayerNorm": {
    "block": BlockForm.PARALLEL,
    "norm": Norm.LAYER,
  },
}


PATTERNS = {
  "full, rotated, below and above the memory": (FULL,),
  "windows below, full without positions above": (LOCAL, LOCAL, NOPE),
  "stick-breaking, windows of another size": (
    STICK,
    LayerConfig(window=3, qk_norm=False),
  ),
}
WITHOUT_MEMORY = {
  "full": (FULL,),
  "stick-breaking": (STICK,),
  "three windows, one full without positions": (LOCAL, LOCAL, LOCAL, NOPE),
  "all kinds, the pattern cut": (STICK, LOCAL, FULL),
  "Mamba-2": (MAMBA,),
  "gated linear attention": (GLA,),
  "Mamba-2, a window, full attention": (MAMBA, LOCAL, NOPE),
}
RECURRENT = {
  "Mamba-2 below, windows above the memory": (MAMBA, MAMBA, LOCAL, LOCAL),
  "RAMba: Mamba-2 below and above": (MAMBA,),
  "gated linear attention and windows": (GLA, LOCAL),
}


def slow(*values):
  """A case for `make test-slow`: it compiles long and adds no new path."""
  return pytest.param(*values, marks=pytest.mark.slow)


def first_of(values, count):
  """All of them; those after the first `count` are slow."""
  return [v if i < count else slow(v) for i, v in enumerate(values)]


def one_by_one(names):
  """Segments of 5 tokens of all, single tokens of the first alone."""
  first, *others = names
  return [(first, 1), *((n, 5) for n in names), *(slow(n, 1) for n in others)]


def stream(model, tokens, cuts):
  """Lower decoder in pieces; hidden states of the whole sequence."""
  carry, pieces = model.init_carry(*tokens.shape), []
  for start, stop in zip([0, *cuts], [*cuts, tokens.shape[1]], strict=True):
    hidden, carry = lower(model, tokens[:, start:stop], carry, start)
    pieces.append(hidden)
  return jnp.concatenate(pieces, axis=1)


@pytest.mark.parametrize("cut", first_of(range(1, 13), 4))
def test_every_split_point(cut):
  model = build(tiny())
  tokens = random_tokens(13, batch=2)
  expected = hidden_of(model, tokens)
  hidden = stream(model, tokens, [cut])
  got = upper(model, hidden, encode(model, hidden), 0)
  assert_close(got, expected)


@pytest.mark.parametrize(("name", "segment"), one_by_one(VARIANTS))
def test_segments_of_every_kind(name, segment):
  model = build(tiny(**VARIANTS[name]))
  tokens = random_tokens(LENGTH)
  expected = hidden_of(model, tokens)
  hidden = stream(model, tokens, list(range(segment, LENGTH, segment)))
  got = upper(model, hidden, encode(model, hidden), 0)
  assert_close(got, expected)


@pytest.mark.parametrize(("name", "segment"), one_by_one(PATTERNS))
def test_segments_through_layers_of_several_kinds(name, segment):
  model = build(tiny(layers=PATTERNS[name]))
  tokens = random_tokens(LENGTH)
  hidden = stream(model, tokens, list(range(segment, LENGTH, segment)))
  chunks = encode(model, hidden)
  expected = hidden_of(model, tokens)
  assert_close(upper(model, hidden, chunks, 0), expected)
  assert model.needs_capacity
  # Above the memory, too, some state hangs on every token.
  assert model.suffix_length(1) is None


@pytest.mark.parametrize(("name", "segment"), one_by_one(RECURRENT))
def test_segments_through_recurrent_layers(name, segment):
  layers = RECURRENT[name]
  model = build(tiny(layers=layers, hsa_residual=Residual.PLAIN))
  tokens = random_tokens(LENGTH)
  hidden = stream(model, tokens, list(range(segment, LENGTH, segment)))
  expected = hidden_of(model, tokens)
  assert_close(upper(model, hidden, encode(model, hidden), 0), expected)
  # A state of constant size, which hangs on every token.
  assert not model.needs_capacity
  below = layers[-1] == LOCAL and layers[0] == MAMBA
  assert (model.suffix_length(1) is not None) == below


@pytest.mark.parametrize(
  ("name", "cut"),
  [
    ("all kinds, the pattern cut", 3),
    *(slow("all kinds, the pattern cut", cut) for cut in (1, 2, 4, 5, 6, 7, 8)),
    *((name, 6) for name in WITHOUT_MEMORY),
    *(slow(name, 1) for name in WITHOUT_MEMORY),
  ],
)
def test_splits_of_every_pattern(name, cut):
  layers = WITHOUT_MEMORY[name]
  cfg = tiny(hsa_num_groups=0, num_lower_layers=3, layers=layers)
  model, tokens = build(cfg), random_tokens(9, batch=2)
  expected = hidden_of(model, tokens)
  assert_close(stream(model, tokens, [cut]), expected)
  assert float(jnp.abs(expected).max()) > 0.5


def test_full_layers_below_the_memory_leave_a_suffix():
  model = build(tiny(layers=(FULL, FULL, LOCAL, LOCAL), window_size=3))
  tokens = random_tokens(LENGTH)
  hidden = stream(model, tokens, [])
  need = model.suffix_length(1)
  assert need == 1 + 2 * 2
  suffix = hidden[:, -need:]
  got = upper(model, suffix, encode(model, hidden), LENGTH - need)[:, -1:]
  assert_close(got, hidden_of(model, tokens)[:, -1:])


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("block_window", [False, True])
def test_suffix_equals_full_forward(block_window, outputs):
  """The suffix of `suffix_length` is exact; one token fewer is not."""
  model = build(tiny(hsa_block_window=block_window, window_size=3))
  tokens = random_tokens(LENGTH)
  hidden = stream(model, tokens, [])
  chunks = encode(model, hidden)
  expected = hidden_of(model, tokens)[:, -outputs:]

  def last(length):
    suffix = hidden[:, -length:]
    return upper(model, suffix, chunks, LENGTH - length)[:, -outputs:]

  need = model.suffix_length(outputs)
  assert need < LENGTH
  assert_close(last(need), expected)
  assert float(jnp.abs(last(need - 1) - expected).max()) > 1e-4


def test_model_without_memory_streams():
  model = build(tiny(hsa_num_groups=0))
  tokens = random_tokens(LENGTH)
  hidden = stream(model, tokens, [2, 9])
  assert_close(hidden, hidden_of(model, tokens))
  assert model.upper_reach == 0


@pytest.mark.parametrize("length", [1, 3, 4])
def test_sequences_shorter_than_a_chunk(length):
  model = build(tiny())
  assert bool(jnp.isfinite(run(model, random_tokens(length))).all())
