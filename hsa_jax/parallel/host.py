"""Settings for a host that computes: one device per core, memory kept."""

import ctypes
import functools
import importlib.util
import os
from collections.abc import Callable

import jax

# Of <malloc.h> in the GNU C library.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8
_MAX_DEVICES = 8  # each holds its own parameters where the mesh replicates
_ACCELERATORS = ("libtpu", "jax_cuda12_plugin", "jax_cuda13_plugin")


def prepare_host(fits: Callable[[int], bool] = lambda count: True) -> int:
  """Makes a run on the CPU fast; call it before JAX starts.

  Each core becomes a device: rows of a batch then run side by side, where one
  device that splits every operation over its threads waits at each. And freed
  memory is kept for the next step. Nothing is done where an accelerator will
  be used; `JAX_NUM_CPU_DEVICES` and a device count in `XLA_FLAGS` overrule the
  number of devices.

  Args:
    fits: whether the run can use a number of devices; the largest that does,
      up to the cores available and 8, is taken.

  Returns:
    The number of devices asked for; 0 where it was left alone.
  """
  if not _host_computes():
    return 0
  keep_freed_memory()
  flags = os.environ.get("XLA_FLAGS", "")
  chosen = "xla_force_host_platform_device_count" in flags
  if chosen or "JAX_NUM_CPU_DEVICES" in os.environ:
    return 0
  cores = min(_available_cores(), _MAX_DEVICES)
  count = next((n for n in range(cores, 1, -1) if fits(n)), 1)
  try:
    jax.config.update("jax_num_cpu_devices", count)
  except RuntimeError:  # JAX has started: its devices are what they are.
    return 0
  return count


def keep_freed_memory() -> bool:
  """Lets the C library keep freed memory for the next allocation.

  By default glibc returns every large buffer to the system at once, and each
  step on a CPU pays for its pages again: up to a third of its time. Threads
  that have allocated already keep their old ways, so call it early.

  Returns:
    Whether the C library took the settings; others than glibc have none.
  """
  try:
    mallopt = ctypes.CDLL(None).mallopt
  except (AttributeError, OSError):
    return False
  settings = {
    _M_MMAP_MAX: 0,
    _M_TRIM_THRESHOLD: 2**31 - 1,
    _M_TOP_PAD: 64 * 2**20,
    _M_ARENA_MAX: 1,
  }
  return all([mallopt(name, value) for name, value in settings.items()])


Options = dict[str, str | bool]

# The default order seeks concurrency inside each device; several devices then
# wait for one another's sums in different places.
_IN_ORDER: Options = {"xla_cpu_enable_concurrency_optimized_scheduler": False}
# By default a chain of products, with what lies between, is one call.
_BY_PRODUCT: Options = {
  "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
}


@functools.cache
def step_compiler_options() -> Options | None:
  """What XLA is to be told of a program that keeps every device busy.

  On a CPU: to run operations in an order that reuses memory; the default order
  costs a tenth of a training step on two devices.

  Returns:
    Options that this version of XLA knows, or None.
  """
  return _known(_IN_ORDER)


@functools.cache
def prefill_compiler_options() -> Options | None:
  """The same of a program that reads a context, without gradients.

  On a CPU also: to make each matrix product a call of its own, which took 0.8
  to 0.9 times as long as chains of them (a segment of 4,096 tokens on a core of
  an EPYC 7003, JAX 0.10.2); a training step took the same time either way.
  """
  return _known({**_IN_ORDER, **_BY_PRODUCT})


def _known(options: Options) -> Options | None:
  """Those of the options that XLA takes here, one by one; None if none."""
  if jax.default_backend() != "cpu":
    return None
  known = {
    name: value for name, value in options.items() if _takes(name, value)
  }
  return known or None


def _takes(name: str, value: str | bool) -> bool:
  try:
    jax.jit(lambda: 0).lower().compile(compiler_options={name: value})
  except (jax.errors.JaxRuntimeError, ValueError):
    return False
  return True


def _host_computes() -> bool:
  """Whether JAX will run on the CPU, as far as can be told before it starts."""
  platforms = os.environ.get("JAX_PLATFORMS", "")
  if platforms:
    return platforms.split(",")[0] == "cpu"
  return not any(importlib.util.find_spec(name) for name in _ACCELERATORS)


def _available_cores() -> int:
  try:
    return len(os.sched_getaffinity(0))
  except AttributeError:  # not on every system
    return os.cpu_count() or 1
