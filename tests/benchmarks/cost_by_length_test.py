"""The benchmark of cost by length runs, and its ratios are of its times."""

import json

import pytest
from flax import nnx

from benchmarks import cost_by_length, measure
from hsa_jax.models import LanguageModel


def test_every_model_is_timed_at_every_length(tmp_path, capsys):
  cost_by_length.main(
    ["--models=gla_tiny", "--lengths=16,64", "--repeats=1", f"--out={tmp_path}"]
  )
  (path,) = tmp_path.glob("cost_by_length_*.json")
  assert path.with_suffix(".png").stat().st_size > 10_000
  report, (out, _) = json.loads(path.read_text()), capsys.readouterr()
  assert {(row["work"], row["tokens"]) for row in report["rows"]} == {
    (work, length) for work in cost_by_length.WORK for length in (16, 64)
  }
  assert all(row["seconds"] > 0 for row in report["rows"])
  assert {row["rows"] for row in report["rows"]} == {1, 4}
  bytes_of = [(r["layer_bytes"], r["chunk_bytes"]) for r in report["memory"]]
  assert len(bytes_of) == 3 and len(set(bytes_of)) == 1, "a constant state"
  for name in ("hardware", "versions", "parameters", "repeats"):
    assert report[name]
  assert "gla_tiny (1,354,080)" in out


def test_growth_is_time_over_the_length_before():
  row = {"model": "a", "work": "forward"}
  rows = [{**row, "tokens": n, "seconds": s} for n, s in ((4, 6.0), (1, 2.0))]
  report = {"rows": [*rows, {**row, "model": "b", "tokens": 1, "seconds": 9.0}]}
  assert cost_by_length.growth(report, "a", "forward") == [
    None,
    pytest.approx(3),
  ]


def test_chunks_and_caches_grow_and_windows_do_not():
  sizes = {}
  for name in ("quickstart", "full_nope_tiny"):
    model = nnx.eval_shape(
      lambda path=f"configs/{name}.py": LanguageModel(
        measure.read_config(path).model, rngs=nnx.Rngs(0)
      )
    )
    sizes[name] = [
      cost_by_length.remembered(model, n) for n in (1024, 4096, 65_536)
    ]
  memory, full = sizes["quickstart"], sizes["full_nope_tiny"]
  assert len({one["layer_bytes"] for one in memory}) == 1
  # 128 landmark dimensions; keys and values of 16 tokens, one head of 32.
  assert memory[0]["chunk_bytes"] == 1024 // 16 * 4 * (128 + 2 * 16 * 32)
  assert memory[2]["chunk_bytes"] == 64 * memory[0]["chunk_bytes"]
  caches = [one["layer_bytes"] for one in full]
  assert caches == sorted(set(caches)), "more for every length"
  assert not any(one["chunk_bytes"] for one in full)
