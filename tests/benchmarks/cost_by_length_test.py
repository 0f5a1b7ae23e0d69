"""The benchmark of cost by length runs, and its ratios are of its times."""

import json

import pytest

from benchmarks import cost_by_length


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
