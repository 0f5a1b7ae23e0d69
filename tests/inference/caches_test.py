"""Caches of whole contexts: how large, how many sizes, and whether they fit."""

import math

import numpy as np
import pytest

from hsa_jax.config import (
  GlaConfig,
  LayerConfig,
  Mamba2Config,
  Mixer,
  Mlp,
  Position,
  Residual,
  layers_of,
)
from hsa_jax.inference import (
  HaloPrefill,
  Prefill,
  caches,
  prefill_decoder,
  read_end,
  read_sequence,
)
from hsa_jax.memory import HostMemory, MemoryHomeError
from hsa_jax.models import mixers
from tests.evaluation.helpers import build_model, model_config, random_tokens
from tests.inference.decode_test import assert_continues, forward, run

FULL = LayerConfig(mixer=Mixer.FULL, position=Position.NONE)
ROPE = LayerConfig(mixer=Mixer.FULL, position=Position.ABSOLUTE_ROPE)
STICK = LayerConfig(mixer=Mixer.STICK_BREAKING, position=Position.NONE)
LOCAL = LayerConfig()
MAMBA = LayerConfig(mixer=Mixer.MAMBA2, mlp=Mlp.NONE)
GLA = LayerConfig(mixer=Mixer.GLA)
SIZES = Mamba2Config(head_dim=8, state_dim=6, chunk_size=8)
CASES = {
  "full": model_config({"layers": (ROPE,)}, num_groups=0),
  "hybrid": model_config({"layers": (LOCAL, FULL, STICK)}, num_groups=0),
  "below the memory": model_config({"layers": (FULL, STICK, LOCAL, LOCAL)}),
  "above the memory": model_config(
    {"layers": (LOCAL, LOCAL, FULL, STICK)}, tokens_per_retrieval=3
  ),
  "recurrent": model_config(
    {"layers": (MAMBA, GLA), "mamba2": SIZES, "gla": GlaConfig(chunk_size=8)},
    num_groups=0,
  ),
  "ramba": model_config(
    {"layers": (MAMBA,), "mamba2": SIZES},
    residual=Residual.PLAIN,
    num_groups=2,
    groups_per_retrieval=2,
  ),
}
NEW = 7
LENGTH = 41


@pytest.mark.parametrize("name", CASES)
def test_the_last_outputs_of_a_stream(name):
  """Segments of 12, several times over; the last one ragged."""
  model, tokens = build_model(CASES[name]), random_tokens((2, LENGTH))
  prefill = Prefill(model, batch=2, segment=12)
  want = np.asarray(forward(model, tokens))

  def source(start, stop):
    return tokens[:, start:stop]

  room = LENGTH // 4
  hidden, memory = read_end(
    prefill, source, HostMemory(room), length=LENGTH, num_outputs=5
  )
  scale = np.abs(want).max()
  got = np.asarray(model.head(hidden))
  np.testing.assert_allclose(got, want[:, -5:], rtol=0, atol=1e-5 * scale)
  assert memory.num_chunks == (room if model.groups else 0)
  parts = read_sequence(prefill, source, HostMemory(room), length=LENGTH)
  for start, stop, states in parts:
    got = np.asarray(model.head(states))[:, : stop - start]
    np.testing.assert_allclose(
      got, want[:, start:stop], rtol=0, atol=1e-5 * scale
    )
  assert prefill.num_compilations == 1


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("length", [1, 4, LENGTH])
def test_decoding_behind_a_prompt(name, length):
  model, prompt = build_model(CASES[name]), random_tokens((2, length))
  prefill = Prefill(model, batch=2, segment=12)
  passed = []
  decoder = prefill_decoder(
    prefill,
    lambda a, b: prompt[:, a:b],
    HostMemory((length + NEW) // 4 + 1),
    length=length,
    room=NEW,
    passed=lambda start, stop, reuse: passed.append((start, stop)),
  )
  assert_continues(model, prompt, *run(decoder, NEW))
  assert passed[-1][1] == length
  assert passed[0][0] == 0 or model.suffix_length(1) is not None


def test_beyond_the_room_is_refused():
  model, prompt = build_model(CASES["full"]), random_tokens((1, 60))
  decoder = prefill_decoder(
    Prefill(model, batch=1, segment=12),
    lambda a, b: prompt[:, a:b],
    HostMemory(0),
    length=60,
  )
  assert decoder.capacity == 64
  with pytest.raises(ValueError, match="room for 64 tokens; say how many"):
    run(decoder, 6)


@pytest.mark.parametrize("name", ["full", "recurrent"])
def test_segments_that_see_everything_are_not_read_apart(name):
  model = build_model(CASES[name])
  with pytest.raises(ValueError, match="--prefill=sequential"):
    HaloPrefill(model, batch=1, segment=8, windows=2)


def test_states_of_constant_size_have_no_end_and_need_no_room():
  model, prompt = build_model(CASES["recurrent"]), random_tokens((1, 60))
  decoder = prefill_decoder(
    Prefill(model, batch=1, segment=12),
    lambda a, b: prompt[:, a:b],
    HostMemory(0),
    length=60,
  )
  assert decoder.capacity is None
  cfg = CASES["recurrent"]
  caches.check_caches(cfg, length=1 << 40, batch=8, free=0)


def test_caches_that_do_not_fit_are_refused():
  cfg = model_config({"layers": (LayerConfig(), FULL)}, num_groups=0)
  layers = layers_of(cfg, 0, 4)
  length = 1 << 20
  full = mixers.state_bytes(layers[1::2], batch=2, capacity=length)
  assert full == 2 * 2 * 2 * length * 16 * 4  # layers, k and v, rows ...
  enough = math.ceil(2 * full / 0.6)
  caches.check_caches(cfg, length=length, batch=2, free=enough)
  with pytest.raises(MemoryHomeError) as caught:
    caches.check_caches(cfg, length=length, batch=2, free=enough // 4)
  text = str(caught.value)
  assert "1,048,576 tokens: the caches of 2 layers that see the whole" in text
  assert "at most 262,14" in text
  assert "--batch" in text
  # Windows are of one size for any context.
  window = model_config(num_groups=0)
  caches.check_caches(window, length=1 << 40, batch=2, free=1)


@pytest.mark.parametrize("length", [1, 64, 1000, 4096, 4097, 70_000])
def test_capacities_are_few_and_not_much_too_large(length):
  capacity = caches.capacity_of(length)
  assert length <= capacity <= max(64, length * 9 / 8)
  octave = {caches.capacity_of(n) for n in range(4097, 8193)}
  assert len(octave) <= 9
