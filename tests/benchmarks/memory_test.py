"""The benchmark of the homes runs, and its floors are what they say."""

import json

import numpy as np
import pytest

from benchmarks import memory
from hsa_jax.memory import MemoryBytes
from hsa_jax.types import Selection

SMALL = (
  "--chunks=8,32",
  "--queries=1,3",
  "--chunk-size=4",
  "--landmark-dim=8",
  "--head-dim=8",
  "--repeats=1",
)


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
  """Runs the command with rates of round numbers; report and stdout."""
  rates = memory.Rates(bytes_per_s=1e9, flops_per_s=1e12)
  places = ("device", "sharded", "host", "disk")
  every = {place: rates for place in places}
  monkeypatch.setattr(memory, "measure_rates", lambda repeats: every)

  def call(*flags):
    memory.main([*SMALL, f"--out={tmp_path}", *flags])
    (path,) = tmp_path.glob("memory_*.json")
    return json.loads(path.read_text()), capsys.readouterr()

  return call


def test_every_home_is_measured(run, tmp_path):
  report, (out, _) = run()
  rows = report["rows"]
  assert len(rows) == 2 * 2 * len(memory.HOMES)
  assert all(row["search_s"] > 0 and row["read_s"] > 0 for row in rows)
  held = {r["home"]: r["held_bytes"] for r in rows if r["chunks"] == 32}
  assert held["host-int8"] < held["host-bfloat16"] < held["host"]
  assert held["disk"] == held["host"] == held["device"] <= held["sharded"]
  assert len(list(tmp_path.glob("memory_*.png"))) == 1
  for name in ("hardware", "versions", "repeats", "shapes", "rates"):
    assert report[name]
  assert out.count("\n|") == 2 + len(rows)


def test_floor_of_a_search_is_the_landmarks_over_the_bandwidth(run):
  report, _ = run("--homes=host")
  floors = {r["chunks"]: r["search_floor_s"] for r in report["rows"]}
  assert floors == pytest.approx({n: n * 8 * 4 / 1e9 for n in (8, 32)})


def test_rates_are_measured(monkeypatch):
  monkeypatch.setattr(memory, "PRODUCTS", {"small": (256, 256, 256)})
  monkeypatch.setattr(memory.measure, "SWEEP_BYTES", 1 << 10)
  rates = memory.measure_rates(repeats=1)
  assert set(rates) == {"device", "sharded", "host", "disk"}
  assert all(min(rate) > 0 for rate in rates.values())
  assert memory.measure.upload_rate(memory.jax.devices()[0], repeats=1) > 0


def test_the_best_rates_of_the_run_count():
  slow, fast = memory.Rates(1e9, 5e9), memory.Rates(2e9, 4e9)
  work = {"search_bytes": 4e9, "search_flops": 0}
  row = {"home": "host", **work, "read_bytes": 0, "read_flops": 1e10}
  report = {"rows": [row]}
  memory.add_floors(report, [{"host": slow}, {"host": fast}])
  assert report["rates"]["host"] == {"bytes_per_s": 2e9, "flops_per_s": 5e9}
  assert (row["search_floor_s"], row["read_floor_s"]) == (2.0, 2.0)


def test_floor_is_the_slower_of_moving_and_computing():
  rates = memory.Rates(bytes_per_s=10.0, flops_per_s=100.0)
  assert memory.Work(20, 100).seconds(rates) == 2.0
  assert memory.Work(20, 500).seconds(rates) == 5.0


def test_a_read_counts_a_chunk_once_and_every_slot():
  flags = memory.read_flags([*SMALL, "--top-k=2"])
  flags.homes = ["host-int8"]
  cfg = memory.model_config(flags)
  plan = memory.make_plan(cfg, "host-int8", 8, ".")
  index = np.array([3, 5, 5, 3, 3, 0]).reshape(1, 3, 1, 2)
  found = Selection(index, np.zeros(index.shape), index >= 0)
  work = memory.read_work(plan, cfg, 3, found)
  record = 2 * 4 * 8 + 8  # integers of keys and values, two scales
  assert work == (3 * record, 3 * 2 * 2 * (4 * 8) * 4 * 2)


def test_a_home_that_does_not_fit_is_left_out(run, monkeypatch):
  free = MemoryBytes(device=10**9, host=10**9, disk=100)
  monkeypatch.setattr(memory, "available", lambda folder: free)
  report, (_, err) = run("--homes=host,disk")
  assert {row["home"] for row in report["rows"]} == {"host"}
  assert "left out" in err and "--memory=disk needs" in err


@pytest.mark.parametrize(
  ("flag", "message"),
  [("--homes=tape", "'tape' is not one of"), ("--chunks=4KB", "--chunks")],
)
def test_bad_flags(flag, message, capsys):
  with pytest.raises(SystemExit) as stop:
    memory.main([flag])
  assert stop.value.code == 2
  assert message in capsys.readouterr().err
