"""How fast a run is: rates, shares of the peak, times, device memory.

Model-FLOPs utilisation is the useful work of the method over what the devices
could do in the same time:

  mfu = tokens * useful FLOPs per token / (seconds * devices * peak FLOP/s)

Useful work is that of `models.flops`, forward and backward (three times the
forward pass), each kind of attention by its own formula: a window layer by the
keys in the window, a read by the chunks selected. Masked products, padding and
recomputation are no useful work. Convention: arXiv 2204.02311 appendix B.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from hsa_jax.config import ModelConfig
from hsa_jax.models.flops import training_flops_per_token


class Machine(NamedTuple):
  """What a run computes on.

  Attributes:
    num_devices: of the mesh, over all processes.
    peak: FLOP/s of one device; None where it is not known.
    device: one of this process, asked for its memory; None asks none.
  """

  num_devices: int
  peak: float | None = None
  device: Any = None


class Window(NamedTuple):
  """The steps between two records.

  Attributes:
    seconds: of each step.
    tokens: in all of them.
    flops: useful, in all of them.
    data_s: spent waiting for batches or sending them off.
    compile_s: spent on compiling, beside `seconds`.
  """

  seconds: tuple[float, ...] = ()
  tokens: int = 0
  flops: float = 0.0
  data_s: float = 0.0
  compile_s: float = 0.0

  def add(
    self, step: float, tokens: int, flops: float, data: float, compiled: float
  ) -> "Window":
    """With one step more."""
    return Window(
      (*self.seconds, step),
      self.tokens + tokens,
      self.flops + flops,
      self.data_s + data,
      self.compile_s + compiled,
    )


@functools.lru_cache
def useful_flops(cfg: ModelConfig | None, seq_len: int) -> float:
  """Per token of training; 0 without a model to count."""
  return training_flops_per_token(cfg, seq_len) if cfg and seq_len else 0.0


def rates(window: Window, machine: Machine) -> dict[str, float]:
  """`perf/` metrics of the steps of a window; at least one step.

  MFU is left out where the peak is not known, memory where the backend does
  not tell, the time of compiling where nothing was compiled.
  """
  total = max(sum(window.seconds), 1e-9)
  per_device = total * machine.num_devices
  values = {
    "perf/step_s": total / len(window.seconds),
    "perf/step_p50_s": _percentile(window.seconds, 50),
    "perf/step_p95_s": _percentile(window.seconds, 95),
    "perf/step_max_s": max(window.seconds),
    "perf/tokens_per_s": window.tokens / total,
    "perf/tokens_per_s_per_device": window.tokens / per_device,
    "perf/data_wait_share": window.data_s / total,
  }
  if window.compile_s:
    values["perf/compile_s"] = window.compile_s
  if window.flops:
    values["perf/useful_flops_per_s_per_device"] = window.flops / per_device
    if machine.peak is not None:
      values["perf/mfu"] = window.flops / per_device / machine.peak
  return values | device_memory(machine.device)


def device_memory(device: Any) -> dict[str, float]:
  """Bytes in use, at most, and in all, of a device that tells; else nothing."""
  stats = device.memory_stats() if device is not None else None
  names = {
    "bytes_in_use": "perf/device_bytes_in_use",
    "peak_bytes_in_use": "perf/device_peak_bytes",
    "bytes_limit": "perf/device_limit_bytes",
  }
  return (
    {name: float(stats[key]) for key, name in names.items() if key in stats}
    if stats
    else {}
  )


def _percentile(values: Sequence[float], share: float) -> float:
  return float(np.percentile(values, share))
