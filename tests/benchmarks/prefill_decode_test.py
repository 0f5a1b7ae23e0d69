"""The benchmark runs, and its yardstick is a causal transformer."""

import json

import jax
import numpy as np
import pytest

from benchmarks import full_attention, prefill_decode
from hsa_jax.memory import MemoryBytes
from tests.evaluation.helpers import MODEL

ROOM = 40


def test_both_models_are_measured(monkeypatch, tmp_path, capsys):
  smallest = prefill_decode.Preset(MODEL, "16,64", segment=8)
  monkeypatch.setitem(prefill_decode.PRESETS, "tiny", smallest)
  # Chunks fit at both lengths, a cache of every layer at the shorter one.
  free = MemoryBytes(device=50_000, host=50_000, disk=0)
  monkeypatch.setattr(prefill_decode, "available", lambda: free)
  prefill_decode.main(["--preset=tiny", "--repeats=1", f"--out={tmp_path}"])
  (path,) = tmp_path.glob("prefill_decode_tiny_*.json")
  report, (out, err) = json.loads(path.read_text()), capsys.readouterr()
  short, longer = report["rows"]
  assert (short["tokens"], longer["tokens"]) == (16, 64)
  for row in (short["hsa"], short["full"], longer["hsa"]):
    assert row["prefill_s"] > 0 and row["decode_s"] > 0
    assert row["cache_bytes"] > 0
  assert short["full"]["decode_attention"] == "xla"
  assert longer["full"] is None
  assert "full attention left out: its cache needs" in err
  assert len(list(tmp_path.glob("*.png"))) == 1
  for name in ("hardware", "versions", "parameters", "repeats"):
    assert report[name]
  assert out.count("\n|") == 2 + len(report["rows"])


def test_lengths_of_the_flags():
  flags = prefill_decode.read_flags(["--hsa-lengths=32M"])
  assert flags.lengths[0] == 8 * 1024 and flags.lengths[-1] == 512 * 1024
  assert flags.hsa_lengths == (32 * 2**20,)


@pytest.fixture(scope="module")
def programs():
  model = prefill_decode.build(full_attention.FullAttention, MODEL)
  return full_attention.FullPrograms(model, ROOM)


def test_a_step_equals_a_longer_prefill(programs):
  tokens = prefill_decode.random_tokens(MODEL, 24)
  decoder = programs.prefill(tokens[:, :22], "xla")
  for i in (22, 23):
    decoder.step(tokens[:, i])
  want = programs.prefill(tokens, "xla").logits
  np.testing.assert_allclose(decoder.logits, want, atol=1e-4)
  assert decoder.position == 24 and np.abs(want).max() > 0.1


@pytest.mark.parametrize("length", [1, 7, 24, 40])
def test_stripes_and_tiles_are_causal_attention(length, monkeypatch):
  monkeypatch.setattr(full_attention, "SCORE_TILE", 2)
  shape = (1, length, 2, 4)
  query, key, value = (
    jax.random.normal(jax.random.key(i), shape) for i in range(3)
  )
  got = full_attention.attend_causally(query, key, value, "xla")
  want = jax.nn.dot_product_attention(query, key, value, is_causal=True)
  np.testing.assert_allclose(got, want, atol=1e-5)


def test_tiles_of_tokens_change_nothing(programs, monkeypatch):
  tokens = prefill_decode.random_tokens(MODEL, 24)
  want = programs.prefill(tokens, "xla").logits
  monkeypatch.setattr(full_attention, "MLP_TILE", 8)
  model = prefill_decode.build(full_attention.FullAttention, MODEL)
  tiled = full_attention.FullPrograms(model, ROOM).prefill(tokens, "xla")
  np.testing.assert_allclose(tiled.logits, want, atol=1e-4)


def test_cache_bytes_are_those_of_the_cache(programs):
  tokens = prefill_decode.random_tokens(MODEL, 24)
  caches = programs.prefill(tokens, "xla")._caches
  held = sum(array.nbytes for array in jax.tree.leaves(caches))
  assert full_attention.cache_bytes(MODEL, ROOM) == held


def test_bad_lengths(capsys):
  with pytest.raises(SystemExit) as stop:
    prefill_decode.main(["--lengths=8KB"])
  assert stop.value.code == 2
  assert "--lengths: '8KB' is not a length" in capsys.readouterr().err
