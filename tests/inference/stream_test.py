"""Streamed in segments, with the upper decoder on a suffix, nothing changes."""

import gc
import threading
import time

import jax
import numpy as np
import pytest

from hsa_jax.inference import stream
from hsa_jax.memory import DeviceMemory, HostMemory
from tests.evaluation.helpers import build_model, model_config, random_tokens

CASES = {
  "two_groups": model_config(num_groups=2, block_window=True),
  "blocks_of_queries": model_config(
    tokens_per_retrieval=3, window_overlap="exclude", residual="standard"
  ),
  "absolute_control": model_config({"position": "absolute_rope"}, num_groups=0),
}
BATCH = 2


def streamed(model, tokens, *, outputs, segment, memory=None):
  """Last logits of `tokens`, segment by segment; the program as well."""
  length = tokens.shape[1]
  prefill = stream.Prefill(model, batch=len(tokens), segment=segment)
  keep = stream.tail_length(model, outputs, length)
  memory = (
    HostMemory(length // prefill.chunk_size) if memory is None else memory
  )
  suffix, memory = stream.read_context(
    prefill,
    lambda start, stop: tokens[:, start:stop],
    memory,
    length=length,
    keep=keep,
  )
  logits = stream.suffix_logits(model, suffix, memory, num_logits=outputs)
  return np.asarray(logits), prefill


@pytest.fixture(scope="module")
def full():
  """Logits of the whole forward pass, compiled once per model."""
  forward = jax.jit(lambda model, tokens: model(tokens))
  return lambda model, tokens: np.asarray(forward(model, tokens))


@pytest.mark.parametrize("name", CASES)
def test_streamed_equals_full_forward(name, full):
  model, tokens = build_model(CASES[name]), random_tokens((BATCH, 131))
  got, prefill = streamed(model, tokens, outputs=5, segment=24)
  want = full(model, tokens)[:, -5:]
  np.testing.assert_allclose(got, want, atol=1e-5, rtol=1e-5)
  assert np.abs(want).max() > 0.5
  assert prefill.num_compilations == 1


@pytest.mark.parametrize(("length", "segment"), [(5, 4), (41, 64)])
def test_any_length_and_segment(length, segment, full):
  model, tokens = build_model(), random_tokens((BATCH, length), seed=length)
  got, _ = streamed(model, tokens, outputs=16, segment=segment)
  want = full(model, tokens)[:, -16:]
  assert got.shape == want.shape  # a short sequence has fewer outputs
  np.testing.assert_allclose(got, want, atol=1e-5, rtol=1e-5)


def test_device_memory_gives_the_same(full):
  model, tokens = build_model(), random_tokens((BATCH, 41))
  got, _ = streamed(
    model, tokens, outputs=16, segment=64, memory=DeviceMemory()
  )
  want = full(model, tokens)[:, -16:]
  np.testing.assert_allclose(got, want, atol=1e-5, rtol=1e-5)


def test_one_token_fewer_in_the_suffix_is_not_exact(full):
  """Otherwise the test above would not show that the suffix is needed."""
  model, tokens = build_model(), random_tokens((BATCH, 41))
  prefill = stream.Prefill(model, batch=BATCH, segment=64)
  keep = stream.tail_length(model, 1, 41)
  suffix, memory = stream.read_context(
    prefill, lambda a, b: tokens[:, a:b], HostMemory(32), length=41, keep=keep
  )
  short = suffix._replace(
    hidden=suffix.hidden[:, 1:], position=suffix.position + 1
  )
  exact = stream.suffix_logits(model, suffix, memory, num_logits=1)
  cut = stream.suffix_logits(model, short, memory, num_logits=1)
  want = full(model, tokens)[:, -1:]
  np.testing.assert_allclose(exact, want, atol=1e-5, rtol=1e-5)
  assert np.abs(np.asarray(cut) - want).max() > 1e-5


def test_control_reads_its_receptive_field_only(full):
  cfg = model_config(num_groups=0)
  field = stream.receptive_field(cfg)
  assert field == 1 + 4 * 5
  model, tokens = build_model(cfg), random_tokens((1, 500))
  seen = []

  def source(start, stop):
    seen.append((start, stop))
    return tokens[:, start:stop]

  prefill = stream.Prefill(model, batch=1, segment=8)
  suffix, memory = stream.read_context(
    prefill, source, HostMemory(0), length=500, keep=3
  )
  assert seen[0][0] == 500 - 3 - (field - 1)
  got = stream.suffix_logits(model, suffix, memory, num_logits=3)
  want = np.asarray(full(model, tokens)[:, -3:])
  np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())


def test_program_and_device_arrays_do_not_grow_with_the_context():
  model = build_model()
  prefill = stream.Prefill(model, batch=1, segment=32)
  prefill.warm_up()
  held = []
  for length in (64, 700, 3_000):
    tokens = random_tokens((1, length))
    memory = HostMemory(length // 4)
    out = stream.read_context(
      prefill, lambda a, b, t=tokens: t[:, a:b], memory, length=length, keep=9
    )
    gc.collect()  # what earlier tests left behind
    held.append(sum(x.nbytes for x in jax.live_arrays()))
    assert memory.num_chunks == length // 4
    del out, memory
  assert prefill.num_compilations == 1
  assert held[0] == held[1] == held[2]


def test_segment_must_hold_whole_chunks():
  with pytest.raises(ValueError, match="segment = 6: must be a multiple of 4"):
    stream.Prefill(build_model(), batch=1, segment=6)
  prefill = stream.Prefill(build_model(), batch=1, segment=8)
  with pytest.raises(ValueError, match="reads"):
    prefill(None, np.zeros((1, 4), np.int32), stream.Stretch(0, 0, 4))


def test_prefetch_keeps_order_and_hands_over_errors():
  def items():
    yield from range(5)
    raise OSError("disk")

  got = []
  with pytest.raises(OSError, match="disk"):
    for item in stream.prefetch(items()):
      got.append(item)
  assert got == list(range(5))


def test_prefetch_works_ahead_and_ends_with_its_consumer():
  made = []

  def items():
    for i in range(1_000):
      made.append(i)
      yield i

  before = threading.active_count()
  iterator = stream.prefetch(items(), depth=2)
  assert next(iterator) == 0
  deadline = time.monotonic() + 5
  while len(made) < 3 and time.monotonic() < deadline:
    time.sleep(0.01)
  assert len(made) >= 3
  iterator.close()
  assert threading.active_count() == before
  assert len(made) < 10
