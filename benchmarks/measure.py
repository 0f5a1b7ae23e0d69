"""Timing, and the facts about a machine that a number is worthless without."""

import importlib.metadata
import importlib.util
import json
import os
import pathlib
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hsa_jax.config import Config, from_dict, validate

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy")
SWEEP_BYTES = 256 << 20  # on each device: larger than any cache


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


def read_config(path: str) -> Config:
  """The validated configuration of a config file.

  It may import others from `configs`.
  """
  spec = importlib.util.spec_from_file_location("config_of_benchmark", path)
  if spec is None or spec.loader is None:
    sys.exit(f"error: --config={path}: no such Python file")
  module = importlib.util.module_from_spec(spec)
  root = str(pathlib.Path(__file__).resolve().parents[1])
  sys.path.append(root)
  try:
    spec.loader.exec_module(module)
  finally:
    sys.path.remove(root)
  cfg = from_dict(module.get_config(), where=path)
  validate(cfg, where=path)
  return cfg


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
  shapes: dict[str, tuple[int, int, int]],
  *,
  repeats: int,
  devices: Sequence[Any] = (None,),
) -> list[MatmulRate]:
  """float32 matrix products of the given shapes, one program each.

  Short products run several times in a row inside one timing, so that the
  cost of starting a program is not taken for slowness of the product. Several
  devices work at the same time, and their rates add up; None is the default
  device.
  """
  product = jax.jit(lambda a, b: jnp.matmul(a, b, precision="highest"))
  rates = []
  for name, (m, k, n) in shapes.items():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((m, k), np.float32)
    b = rng.standard_normal((k, n), np.float32)
    flops = 2 * m * k * n
    loops = max(1, round(4e9 / flops))
    pairs = [jax.device_put((a, b), device) for device in devices] * loops

    def call(pairs: Any = pairs) -> list[Any]:
      return [product(*pair) for pair in pairs]

    timing = time_calls(call, repeats=repeats)
    rate = len(pairs) * flops / timing.median_s
    rates.append(MatmulRate(name, (m, k, n), rate))
  return rates


def read_rate(devices: Sequence[Any], *, repeats: int) -> float:
  """Bytes per second that the devices together read from their memories."""
  total = jax.jit(jnp.sum)
  ones = np.ones(SWEEP_BYTES // 4, np.float32)
  arrays = [jax.device_put(ones, device) for device in devices]
  timing = time_calls(lambda: [total(x) for x in arrays], repeats=repeats)
  return len(arrays) * ones.nbytes / timing.median_s


def upload_rate(device: Any, *, repeats: int) -> float:
  """Bytes per second from the host's memory to that of an accelerator."""
  data = np.ones(SWEEP_BYTES, np.uint8)
  timing = time_calls(lambda: jax.device_put(data, device), repeats=repeats)
  return data.nbytes / timing.median_s


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


def machine_name(machine: dict[str, Any]) -> str:
  """Part of a file name: the platform, and the cores where they compute."""
  name = machine["platform"]
  return f"{name}_{machine['cores']}cores" if name == "cpu" else name


def describe_machine(report: dict[str, Any]) -> str:
  """One line above a table."""
  machine = report["hardware"]
  return (
    f"{machine['cpu']}, {machine['cores']} cores; {machine['num_devices']} x"
    f" {machine['device']}; jax {report['versions']['jax']}"
  )


def write_json(
  report: dict[str, Any], folder: str | os.PathLike[str], name: str
) -> pathlib.Path:
  """Writes `NAME_MACHINE.json`; one file per kind of machine."""
  path = pathlib.Path(folder)
  path.mkdir(parents=True, exist_ok=True)
  path /= f"{name}_{machine_name(report['hardware'])}.json"
  path.write_text(json.dumps(report, indent=2) + "\n")
  return path


def say(text: str) -> None:
  """Progress, apart from the report."""
  print(text, file=sys.stderr, flush=True)
