"""Every output of a long sequence, one segment at a time."""

import functools

import jax
import numpy as np
import pytest

from hsa_jax.inference import HaloPrefill, Prefill, read_sequence
from hsa_jax.memory import HostMemory
from tests.evaluation.helpers import (
  LANDMARKS,
  build_model,
  model_config,
  random_tokens,
)

LENGTH = 75
BATCH = 2
CASES = {
  "two_groups_with_windows": model_config(num_groups=2, block_window=True),
  "blocks_of_queries": model_config(
    tokens_per_retrieval=3, window_overlap="exclude"
  ),
  "landmark_tokens": LANDMARKS,
  "absolute_control": model_config({"position": "absolute_rope"}, num_groups=0),
}


@jax.jit
def forward(model, tokens):
  return model.hidden(tokens)


def assert_equals_full_forward(prefill, tokens):
  """Parts cover the sequence in order, and their states are right."""
  model = prefill.model
  want = np.asarray(forward(model, tokens))
  scale, position = np.abs(want).max(), 0
  for part in read_sequence(
    prefill,
    lambda a, b: tokens[:, a:b],
    HostMemory(LENGTH // 4),
    length=LENGTH,
  ):
    assert part.start == position
    got = part.hidden[:, : part.stop - part.start]
    np.testing.assert_allclose(
      got, want[:, part.start : part.stop], rtol=0, atol=1e-5 * scale
    )
    position = part.stop
  assert position == LENGTH


@functools.cache
def prefill_of(name: str, segment: int) -> Prefill:
  return Prefill(build_model(CASES[name]), batch=BATCH, segment=segment)


@pytest.mark.parametrize(
  ("name", "segment"),
  [
    ("two_groups_with_windows", 4),
    ("two_groups_with_windows", 80),
    # Segments begin in the middle of a block of tokens.
    ("blocks_of_queries", 4),
    ("blocks_of_queries", 20),
    ("landmark_tokens", 12),
    ("absolute_control", 20),
  ],
)
def test_equals_the_full_forward_pass(name, segment):
  prefill = prefill_of(name, segment)
  assert_equals_full_forward(prefill, random_tokens((BATCH, LENGTH)))
  assert prefill.num_compilations == 1


def test_independent_segments_give_the_same():
  model = build_model(CASES["two_groups_with_windows"])
  # A call answers for as many tokens as the head holds: one shape follows.
  prefill = HaloPrefill(model, batch=BATCH, segment=4, windows=3)
  assert prefill.halo == 12
  assert_equals_full_forward(prefill, random_tokens((BATCH, LENGTH)))


def test_device_arrays_do_not_grow_with_the_length():
  prefill, held = prefill_of("two_groups_with_windows", 4), []
  for length in (12, 150):
    tokens = random_tokens((BATCH, length))
    parts = read_sequence(
      prefill,
      lambda a, b, t=tokens: t[:, a:b],
      HostMemory(length // 4, search_block=16),
      length=length,
    )
    for part in parts:
      held.append(sum(x.nbytes for x in jax.live_arrays()))
      del part
  assert max(held[3:]) == held[2]
