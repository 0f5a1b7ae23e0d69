"""Decoding token by token equals the full forward pass on the longer text."""

import functools

import jax
import numpy as np
import pytest

from hsa_jax.inference import Prefill, decode, generate, prefill_decoder
from hsa_jax.memory import DeviceMemory, HostMemory
from tests.evaluation.helpers import (
  LANDMARKS,
  build_model,
  model_config,
  random_tokens,
)

CHUNK = 4
BATCH = 2
NEW = 11  # tokens; passes several chunk borders
LONGEST = 41
LENGTHS = (1, 2, CHUNK - 1, CHUNK, CHUNK + 1, 23, LONGEST)
CASES = {
  "two_groups_with_windows": model_config(num_groups=2, block_window=True),
  "blocks_of_queries": model_config(
    tokens_per_retrieval=3, window_overlap="exclude", residual="standard"
  ),
  "absolute_positions": model_config(
    {"position": "absolute_rope"}, position="absolute_rope"
  ),
  "landmark_tokens": LANDMARKS,
  "control": model_config(num_groups=0),
}


@jax.jit
def forward(model, tokens):
  return model(tokens)


@functools.cache
def prefill_of(name: str) -> Prefill:
  return Prefill(build_model(CASES[name]), batch=BATCH, segment=12)


def start(prefill, prompt, make_memory=HostMemory):
  """A decoder that has read `prompt`, with room for all tests."""
  return prefill_decoder(
    prefill,
    lambda a, b: prompt[:, a:b],
    make_memory((LONGEST + NEW) // CHUNK + 1),
    length=prompt.shape[1],
  )


def num_compiled(function) -> int:
  return sum(program._cache_size() for program in function.programs.values())


PROGRAMS = (decode._step, decode._read_token, decode._encode, decode._logits_at)


def run(decoder, count=NEW):
  """Greedy tokens, and the logits that each was chosen by."""
  tokens, logits = [], []
  for new in generate(decoder, max_tokens=count):
    tokens.append(new)
    logits.append(np.asarray(decoder.logits))
  return np.stack(tokens, axis=1), np.stack(logits, axis=1)


def assert_continues(model, prompt, tokens, logits):
  """One pass over everything: causal, so each prefix is in it."""
  length, count = prompt.shape[1], tokens.shape[1]
  whole = np.zeros((len(prompt), LONGEST + NEW), np.int32)
  whole[:, :length] = prompt
  whole[:, length : length + count] = tokens
  want = np.asarray(forward(model, whole))[:, length - 1 : length + count - 1]
  scale = np.abs(want).max()
  np.testing.assert_allclose(logits, want, rtol=0, atol=1e-5 * scale)
  np.testing.assert_array_equal(tokens, want.argmax(-1))
  assert scale > 0.5


@pytest.mark.parametrize("name", CASES)
def test_decoding_equals_the_full_forward_pass(name):
  prefill = prefill_of(name)
  model = prefill.model
  for length in LENGTHS:
    prompt = random_tokens((BATCH, length), seed=length)
    decoder = start(prefill, prompt)
    assert_continues(model, prompt, *run(decoder))
    if prefill.has_memory:
      # The last token is not read: nothing follows it.
      read = length + NEW - 1
      assert (decoder.position, decoder.memory.num_chunks) == (
        read,
        read // CHUNK,
      )
  assert prefill.num_compilations == 1


def test_a_memory_on_the_device_is_one_compiled_step():
  prefill, prompt = prefill_of("blocks_of_queries"), random_tokens((BATCH, 23))
  assert not decode.is_value(HostMemory(1))
  decoder = start(prefill, prompt, DeviceMemory)
  assert decode.is_value(decoder.memory)
  before = num_compiled(decode._step)
  assert_continues(prefill.model, prompt, *run(decoder))
  # One that searches, one that reuses the retrieval of its block.
  assert num_compiled(decode._step) - before == 2


@pytest.mark.parametrize("make_memory", [DeviceMemory, HostMemory])
def test_decoding_on_and_on_compiles_nothing_more(make_memory):
  prefill, prompt = prefill_of("two_groups_with_windows"), random_tokens((2, 5))
  decoder = start(prefill, prompt, make_memory)
  run(decoder, 3 * CHUNK)
  before = [num_compiled(f) for f in PROGRAMS]
  run(decoder, LONGEST - 3 * CHUNK)
  assert [num_compiled(f) for f in PROGRAMS] == before


def test_programs_do_not_depend_on_the_position():
  prefill = prefill_of("two_groups_with_windows")
  run(start(prefill, random_tokens((BATCH, 5))))
  compiled = num_compiled(decode._read_token)
  run(start(prefill, random_tokens((BATCH, LONGEST))))
  assert num_compiled(decode._read_token) == compiled


def test_only_new_blocks_search():
  prefill = prefill_of("blocks_of_queries")
  decoder = start(prefill, random_tokens((BATCH, 23)))
  searched, search = [], decoder.memory.search

  def record(query, **options):
    searched.append(decoder.position)
    return search(query, **options)

  decoder.memory.search = record
  run(decoder, 8)
  assert searched == [24, 27]


def test_stop_token_ends_rows_one_by_one():
  prefill, prompt = prefill_of("control"), random_tokens((BATCH, 9))
  free, _ = run(start(prefill, prompt))
  stop = int(free[0, 2])
  decoder = start(prefill, prompt)
  stopped = generate(decoder, max_tokens=4, stop_token=stop)
  got = np.stack(list(stopped), axis=1)
  first = list(free[0]).index(stop)
  np.testing.assert_array_equal(got[0, : first + 1], free[0, : first + 1])
  assert (got[0, first:] == stop).all()


def test_empty_prompt_is_refused():
  with pytest.raises(ValueError, match="at least one token"):
    start(prefill_of("control"), np.zeros((BATCH, 0), np.int32))
