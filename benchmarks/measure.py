"""Timing, and the facts about a machine that a number is worthless without."""

import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy")


class Timing(NamedTuple):
  """Seconds per call over the repeats."""

  median_s: float
  min_s: float
  max_s: float


class MatmulRate(NamedTuple):
  """A product [M, K] x [K, N] and the rate it ran at (median)."""

  name: str
  shape: tuple[int, int, int]
  flops_per_s: float


def time_calls(call: Callable[[], Any], *, repeats: int) -> Timing:
  """Times `call` after one warm-up; waits for its result each time."""
  jax.block_until_ready(call())
  seconds = []
  for _ in range(repeats):
    start = time.perf_counter()
    jax.block_until_ready(call())
    seconds.append(time.perf_counter() - start)
  return Timing(statistics.median(seconds), min(seconds), max(seconds))


def matmul_rates(
  shapes: dict[str, tuple[int, int, int]], *, repeats: int
) -> list[MatmulRate]:
  """float32 matrix products of the given shapes, one program each.

  Short products run several times in a row inside one timing, so that the
  cost of starting a program is not taken for slowness of the product.
  """
  product = jax.jit(lambda a, b: jnp.matmul(a, b, precision="highest"))
  rates = []
  for name, (m, k, n) in shapes.items():
    rng = np.random.default_rng(0)
    a = jnp.asarray(rng.standard_normal((m, k), np.float32))
    b = jnp.asarray(rng.standard_normal((k, n), np.float32))
    flops = 2 * m * k * n
    loops = max(1, round(4e9 / flops))

    def call(a: Any = a, b: Any = b, loops: int = loops) -> list[Any]:
      return [product(a, b) for _ in range(loops)]

    timing = time_calls(call, repeats=repeats)
    rates.append(MatmulRate(name, (m, k, n), loops * flops / timing.median_s))
  return rates


def hardware() -> dict[str, Any]:
  """What was measured on; no names of hosts, users or folders."""
  device = jax.devices()[0]
  return {
    "cpu": cpu_name(),
    "cores": len(os.sched_getaffinity(0)),
    "memory_gib": round(memory_bytes() / 2**30, 1),
    "system": platform.system(),
    "platform": device.platform,
    "device": device.device_kind,
    "num_devices": jax.device_count(),
  }


def versions() -> dict[str, str]:
  """Versions of Python and of the libraries that matter to speed."""
  found = {name: importlib.metadata.version(name) for name in LIBRARIES}
  return {"python": platform.python_version(), **found}


def cpu_name() -> str:
  """The processor's own name, or its architecture."""
  try:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
      names = [
        li.split(":", 1)[1] for li in file if li.startswith("model name")
      ]
  except OSError:
    names = []
  return names[0].strip() if names else platform.machine()


def memory_bytes() -> int:
  """Physical memory."""
  return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
