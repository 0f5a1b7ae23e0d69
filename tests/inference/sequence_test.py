"""Every output of a long sequence, one segment at a time."""

import jax
import numpy as np
import pytest

from hsa_jax.inference import HaloPrefill, Prefill, read_sequence
from hsa_jax.memory import HostMemory
from tests.evaluation.helpers import build_model, model_config, random_tokens

LENGTH = 75
BATCH = 2
CASES = {
  "two_groups_with_windows": model_config(num_groups=2, block_window=True),
  "blocks_of_queries": model_config(
    tokens_per_retrieval=3, window_overlap="exclude"
  ),
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


@pytest.mark.parametrize("segment", [4, 20, 80])
@pytest.mark.parametrize("name", CASES)
def test_equals_the_full_forward_pass(name, segment):
  prefill = Prefill(build_model(CASES[name]), batch=BATCH, segment=segment)
  assert_equals_full_forward(prefill, random_tokens((BATCH, LENGTH)))
  assert prefill.num_compilations == 1


def test_independent_segments_give_the_same():
  prefill = HaloPrefill(build_model(), batch=BATCH, segment=8, windows=2)
  assert_equals_full_forward(prefill, random_tokens((BATCH, LENGTH)))


def test_device_arrays_do_not_grow_with_the_length():
  model, held = build_model(), []
  prefill = Prefill(model, batch=1, segment=20)
  for length in (60, 600):
    tokens = random_tokens((1, length))
    parts = read_sequence(
      prefill,
      lambda a, b, t=tokens: t[:, a:b],
      HostMemory(length // 4),
      length=length,
    )
    for part in parts:
      held.append(sum(x.nbytes for x in jax.live_arrays()))
      del part
  assert max(held[3:]) == held[2]
