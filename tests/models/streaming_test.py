"""T4: any split of the input gives the full forward's answer."""

import jax.numpy as jnp
import pytest

from hsa_jax.config import Position, RetrievalHeads
from tests.models.helpers import (
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
}


def stream(model, tokens, cuts):
  """Lower decoder in pieces; hidden states of the whole sequence."""
  carry, pieces = model.init_carry(tokens.shape[0]), []
  for start, stop in zip([0, *cuts], [*cuts, tokens.shape[1]], strict=True):
    hidden, carry = lower(model, tokens[:, start:stop], carry, start)
    pieces.append(hidden)
  return jnp.concatenate(pieces, axis=1)


@pytest.mark.parametrize("cut", range(1, 13))
def test_every_split_point(cut):
  model = build(tiny())
  tokens = random_tokens(13, batch=2)
  expected = hidden_of(model, tokens)
  hidden = stream(model, tokens, [cut])
  got = upper(model, hidden, encode(model, hidden), 0)
  assert_close(got, expected)


@pytest.mark.parametrize("segment", [1, 5])
@pytest.mark.parametrize("name", VARIANTS)
def test_segments_of_every_kind(name, segment):
  model = build(tiny(**VARIANTS[name]))
  tokens = random_tokens(LENGTH)
  expected = hidden_of(model, tokens)
  hidden = stream(model, tokens, list(range(segment, LENGTH, segment)))
  got = upper(model, hidden, encode(model, hidden), 0)
  assert_close(got, expected)


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
  assert model.num_upper_window_layers == 0


@pytest.mark.parametrize("length", [1, 3, 4])
def test_sequences_shorter_than_a_chunk(length):
  model = build(tiny())
  assert bool(jnp.isfinite(run(model, random_tokens(length))).all())
