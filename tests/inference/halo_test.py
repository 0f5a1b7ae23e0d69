"""Independent segments give what carried caches give, on 1 and 8 devices."""

import functools
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from hsa_jax.inference import (
  HaloPrefill,
  Prefill,
  halo_length,
  prefill_decoder,
  read_context,
)
from hsa_jax.memory import HostMemory
from tests.evaluation.helpers import (
  LANDMARKS,
  build_model,
  model_config,
  random_tokens,
)

BATCH = 2
CASES = {
  "memory": model_config(),
  "absolute_positions": model_config(
    {"position": "absolute_rope"}, position="absolute_rope"
  ),
  "landmark_tokens": LANDMARKS,
  "control": model_config(num_groups=0),
}


class KeptBlocks(HostMemory):
  """Remembers what was appended."""

  def __init__(self, capacity):
    super().__init__(capacity)
    self.blocks = []

  def append(self, block):
    self.blocks.append([np.asarray(x) for x in block])
    return super().append(block)


@functools.cache
def prefill_of(name: str) -> Prefill:
  """Carried caches: what the answers are compared with."""
  return Prefill(build_model(CASES[name]), batch=BATCH, segment=24)


def read(prefill, tokens, keep=30):
  """Everything that a context leaves behind, as numpy arrays."""
  length = tokens.shape[1]
  suffix, memory = read_context(
    prefill,
    lambda a, b: tokens[:, a:b],
    KeptBlocks(length // 4),
    length=length,
    keep=min(keep, length),
  )
  chunks = [np.concatenate(x, axis=1) for x in zip(*memory.blocks, strict=True)]
  carry = suffix.carry
  # Empty slots of a young cache are never read.
  young = carry.keys.shape[2] - int(carry.length[0])
  return [
    suffix.hidden,
    *chunks,
    carry.keys[:, :, young:],
    carry.values[:, :, young:],
  ], (memory.num_chunks, suffix.position)


def assert_same(got, want):
  assert got[1] == want[1]
  for ours, theirs in zip(got[0], want[0], strict=True):
    assert ours.shape == theirs.shape
    scale = np.abs(theirs).max(initial=1.0)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("name", CASES)
def test_equals_the_sequential_answer(name):
  sequential = prefill_of(name)
  halo = HaloPrefill(sequential.model, batch=BATCH, segment=8, windows=3)
  # Shorter than the halo, the halo, one call, several, ragged ends.
  for length in (1, 7, 12, 13, 36, 61, 131):
    tokens = random_tokens((BATCH, length), seed=length)
    assert_same(read(halo, tokens), read(sequential, tokens))


def test_one_short_window_at_a_time():
  model, tokens = build_model(), random_tokens((BATCH, 77))
  halo = HaloPrefill(model, batch=BATCH, segment=4, windows=1)
  want = read(prefill_of("memory"), tokens)
  assert_same(read(halo, tokens), want)


def test_halo_is_whole_chunks_and_is_needed():
  model = build_model()
  assert halo_length(model) == 12  # (6 - 1) * 2 layers, in chunks of 4
  tokens = random_tokens((BATCH, 77))
  short = HaloPrefill(model, batch=BATCH, segment=12, windows=2)
  short.halo -= 4
  want = read(prefill_of("memory"), tokens)
  with pytest.raises(AssertionError, match="Mismatch|mismatch"):
    assert_same(read(short, tokens), want)


def test_a_decoder_starts_from_it_too():
  model, tokens = build_model(), random_tokens((BATCH, 50))
  logits = []
  for prefill in (
    prefill_of("memory"),
    HaloPrefill(model, batch=BATCH, segment=8, windows=3),
  ):
    decoder = prefill_decoder(
      prefill, lambda a, b: tokens[:, a:b], HostMemory(20), length=50
    )
    decoder.step(np.array([7, 9], np.int32))
    logits.append(np.asarray(decoder.logits))
  np.testing.assert_allclose(*logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
  ("sizes", "message"),
  [
    ({"segment": 6, "windows": 2}, "segment = 6: must be a multiple of 4"),
    ({"segment": 8, "windows": 0}, "windows = 0: must be a multiple of 1"),
  ],
)
def test_bad_sizes(sizes, message):
  with pytest.raises(ValueError, match=message):
    HaloPrefill(build_model(), batch=1, **sizes)


PROGRAM = """
import json, jax, numpy as np
from hsa_jax.config import MeshConfig
from hsa_jax.inference import HaloPrefill, Prefill, prefill_decoder
from hsa_jax.memory import DeviceMemory, HostMemory
from hsa_jax.parallel import make_mesh
from tests.evaluation.helpers import build_model, random_tokens

assert len(jax.devices()) == 8
model, length = build_model(), 12 + 2 * 8 * 4 + 7
tokens = random_tokens((1, length))
mesh = make_mesh(MeshConfig())
halo = HaloPrefill(model, batch=1, segment=4, windows=8, mesh=mesh)
try:
  HaloPrefill(model, batch=1, segment=4, windows=4, mesh=mesh)
except ValueError as error:
  refused = str(error)
logits, chunks = [], []
for prefill, memory in (
    (Prefill(model, batch=1, segment=16), HostMemory(21)),
    (halo, HostMemory(21)), (halo, DeviceMemory())):
  decoder = prefill_decoder(
    prefill, lambda a, b: tokens[:, a:b], memory, length=length)
  decoder.step(np.array([5], np.int32))
  logits.append(np.asarray(decoder.logits))
  chunks.append(decoder.memory.num_chunks)
stretch = list(halo.stretches(0, length))[1]
rows = halo.load(lambda a, b: tokens[:, a:b], stretch)
out = halo(None, rows, stretch)
print(json.dumps({
  "refused": refused,
  "difference": max(float(np.abs(x - logits[0]).max()) for x in logits[1:]),
  "chunks": chunks,
  "rows": sorted({s.data.shape[0] for s in rows.addressable_shards}),
  "devices": len(out.block.keys.sharding.device_set),
  "split": out.block.keys.sharding.spec[1] == "data"}))
"""


def test_eight_devices_give_the_same():
  result = subprocess.run(
    [sys.executable, "-c", PROGRAM],
    env={
      **os.environ,
      "JAX_PLATFORMS": "cpu",
      "JAX_NUM_CPU_DEVICES": "8",
      "PYTHONPATH": os.getcwd(),
      # The partitioning is under test, not the speed of the program.
      "XLA_FLAGS": "--xla_backend_optimization_level=0"
      " --xla_llvm_disable_expensive_passes=true",
    },
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert result.returncode == 0, result.stderr[-3000:]
  got = json.loads(result.stdout.splitlines()[-1])
  assert got["difference"] < 1e-5
  assert got["chunks"] == [21, 21, 21]  # the step completes one
  assert got["rows"] == [1] and got["devices"] == 8 and got["split"]
  assert "windows = 4: must be a multiple of 8" in got["refused"]
