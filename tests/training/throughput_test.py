"""Utilisation against operations counted by hand, for each attention kind."""

import dataclasses

import jax
import pytest

from hsa_jax.config import HsaConfig, ModelConfig, RetrievalHeads, Weighting
from hsa_jax.parallel.chips import peak_flops
from hsa_jax.training.hooks import MetricsLog, Moment, Record
from hsa_jax.training.throughput import (
  Machine,
  Window,
  device_memory,
  rates,
  useful_flops,
)

# Small sizes, all different, so that no two products are the same by accident.
D, F, N, H, V, W = 10, 14, 4, 6, 50, 3
T, S, K, R, FE = 7, 2, 2, 8, 18

WINDOW = ModelConfig(
  vocab_size=V,
  embed_dim=D,
  num_lower_layers=2,
  num_upper_layers=2,
  num_heads=N,
  num_kv_heads=2,
  head_dim=H,
  mlp_dim=F,
  window_size=W,
  hsa=HsaConfig(num_groups=0),
)
HSA = dataclasses.replace(
  WINDOW,
  hsa=HsaConfig(
    num_groups=1,
    chunk_size=S,
    top_k=K,
    num_memory_heads=2,
    landmark_dim=R,
    encoder_mlp_dim=FE,
  ),
)


def product(rows, inner, columns):
  """Operations of a matrix product; a multiplication and a sum are two."""
  return 2 * rows * inner * columns


def projections(rows, mlp):
  """Query, key, value, output, and the three matrices of a gated MLP."""
  heads = product(rows, D, N * H) * 2 + product(rows, D, 2 * H) * 2
  return heads + 3 * product(rows, D, mlp)


def window_layer():
  """Token by token: each sees itself and up to W - 1 tokens before."""
  ops = projections(T, F)
  for t in range(T):
    keys = len(range(max(0, t - W + 1), t + 1))
    ops += N * (product(1, H, keys) + product(1, keys, H))
  return ops


def encoder():
  """Each of the complete chunks with its CLS token, all to all."""
  rows = S + 1
  each = projections(rows, FE)
  each += N * (product(rows, H, rows) + product(rows, rows, H))
  return T // S * each


def chunking():
  """Keys, values and one landmark of each complete chunk."""
  return T // S * (2 * product(S, D, 2 * H) + product(1, D, R))


def group(stride=1):
  """Retrieval by every `stride`-th token, and the read of all."""
  ops = 0
  for t in range(T):
    visible = t // S
    if stride == 1:
      ops += product(1, D, R) + product(1, R, visible)
    slots = min(K, visible)
    ops += product(1, D, N * H) + product(1, N * H, D) + 3 * product(1, D, F)
    ops += slots * N * (product(1, H, S) + product(1, S, H))
  return ops


def head():
  return product(T, D, V)


def test_window_layers_alone():
  by_hand = 3 * (4 * window_layer() + head()) / T
  assert useful_flops(WINDOW, T) == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.parametrize("groups", [1, 2])
def test_sparse_attention(groups):
  hsa = dataclasses.replace(HSA.hsa, num_groups=groups)
  cfg = dataclasses.replace(HSA, hsa=hsa)
  forward = 4 * window_layer() + encoder() + chunking() + groups * group()
  by_hand = 3 * (forward + head()) / T
  assert useful_flops(cfg, T) == pytest.approx(by_hand, rel=1e-12)


def test_a_window_inside_the_block_is_a_layer_without_its_mlp():
  hsa = dataclasses.replace(HSA.hsa, block_window=True)
  cfg = dataclasses.replace(HSA, hsa=hsa)
  extra = 3 * (window_layer() - 3 * product(T, D, F)) / T
  assert useful_flops(cfg, T) - useful_flops(HSA, T) == pytest.approx(extra)


@pytest.mark.parametrize(
  "changes",
  [
    {"retrieval_heads": RetrievalHeads.SINGLE},
    {"weighting": Weighting.SOFTMAX_DECAY},
    {"weighting": Weighting.MASS},
  ],
)
def test_choices_that_cost_no_products(changes):
  """The landmark dimension is a total: heads share it."""
  hsa = dataclasses.replace(HSA.hsa, **changes)
  cfg = dataclasses.replace(HSA, hsa=hsa)
  assert useful_flops(cfg, T) == useful_flops(HSA, T)


def test_rates_of_a_window():
  window = Window()
  for seconds in (1.0, 2.0, 1.0, 4.0):
    window = window.add(seconds, 100, 3e12, data=0.25, compiled=0.0)
  values = rates(window, Machine(num_devices=2, peak=1e12))
  expected = {
    "perf/step_s": 2.0,
    "perf/step_p50_s": 1.5,
    "perf/step_p95_s": 3.7,
    "perf/step_max_s": 4.0,
    "perf/tokens_per_s": 50.0,
    "perf/tokens_per_s_per_device": 25.0,
    "perf/data_wait_share": 0.125,
    "perf/useful_flops_per_s_per_device": 12e12 / 8 / 2,
    "perf/mfu": 0.75,
  }
  assert values == pytest.approx(expected)


def test_what_is_not_known_is_not_printed():
  window = Window().add(1.0, 10, 0.0, data=0.0, compiled=2.5)
  values = rates(window, Machine(1))
  assert "perf/mfu" not in values and values["perf/compile_s"] == 2.5
  assert not any("device_bytes" in name for name in values)
  window = Window().add(1.0, 10, 5.0, data=0.0, compiled=0.0)
  values = rates(window, Machine(1, peak=peak_flops("cpu")))
  assert "perf/mfu" not in values and "perf/compile_s" not in values


def test_memory_where_the_backend_tells():
  class Chip:
    def memory_stats(self):
      return {"bytes_in_use": 7, "peak_bytes_in_use": 9, "num_allocs": 3}

  assert device_memory(Chip()) == {
    "perf/device_bytes_in_use": 7.0,
    "perf/device_peak_bytes": 9.0,
  }
  assert device_memory(jax.devices("cpu")[0]) == {}
  assert device_memory(None) == {}


def test_the_log_counts_each_stage_by_its_own_length():
  class Writer:
    def write(self, step, values):
      self.values = values

  writer = Writer()
  machine = Machine(num_devices=1, peak=1e6)
  log = MetricsLog(writer, every=2, machine=machine, model=HSA)
  for step, length in ((1, T), (2, 2 * T)):
    record = Record(step, {}, 0.5, 30, "s", Moment.STEP, length, 0.1, 1.0)
    log.on_metrics(record)
  work = 30 * (useful_flops(HSA, T) + useful_flops(HSA, 2 * T))
  assert writer.values["perf/mfu"] == pytest.approx(work / 1.0 / 1e6)
  assert writer.values["perf/compile_s"] == 2.0
  assert writer.values["perf/data_wait_share"] == pytest.approx(0.2)
