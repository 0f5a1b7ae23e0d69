import os
import subprocess
import sys

import jax
import pytest

from hsa_jax.parallel import host

PROGRAM = """
import jax
from hsa_jax.parallel import prepare_host
asked = prepare_host(lambda count: count != 3)
print(asked, jax.device_count())
"""


def run(**environment: str) -> list[int]:
  """Devices asked for and got, in a fresh process."""
  kept = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
  done = subprocess.run(
    [sys.executable, "-c", PROGRAM],
    env={**kept, **environment},
    capture_output=True,
    text=True,
    check=True,
  )
  return [int(word) for word in done.stdout.split()]


def test_each_core_that_fits_becomes_a_device():
  cores = min(len(os.sched_getaffinity(0)), 8)
  expected = 2 if cores == 3 else cores
  assert run(JAX_PLATFORMS="cpu") == [expected, expected]


def test_a_number_given_by_the_user_stands():
  assert run(JAX_PLATFORMS="cpu", JAX_NUM_CPU_DEVICES="3") == [0, 3]
  flag = "--xla_force_host_platform_device_count=5"
  assert run(JAX_PLATFORMS="cpu", XLA_FLAGS=flag) == [0, 5]


def test_too_late_changes_nothing(monkeypatch):
  monkeypatch.setattr(host, "keep_freed_memory", lambda: True)
  before = jax.device_count()
  assert host.prepare_host() in (0, before)
  assert jax.device_count() == before


@pytest.mark.parametrize(
  ("platforms", "plugin", "expected"),
  [
    ("cpu", True, True),
    ("tpu,cpu", False, False),
    ("", True, False),
    ("", False, True),
  ],
)
def test_an_accelerator_is_left_alone(monkeypatch, platforms, plugin, expected):
  monkeypatch.setenv("JAX_PLATFORMS", platforms)
  found = object() if plugin else None
  monkeypatch.setattr(host.importlib.util, "find_spec", lambda name: found)
  assert host._host_computes() is expected


@pytest.mark.parametrize(
  "options", [host.step_compiler_options, host.prefill_compiler_options]
)
def test_options_are_those_that_xla_knows(monkeypatch, options):
  jax.jit(lambda: 0).lower().compile(options())
  options.cache_clear()
  monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
  assert options() is None
  options.cache_clear()


def test_an_option_that_xla_does_not_know_is_left_out():
  one = {"xla_cpu_enable_concurrency_optimized_scheduler": False}
  others = {"xla_cpu_no_such_option": True}
  assert host._known({**others, **one}) == one
  assert host._known(others) is None
