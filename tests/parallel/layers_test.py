"""Layers of every kind on 8 virtual devices."""

import pathlib

import pytest

from tests.devices import run_cases

CASES = pathlib.Path(__file__).with_name("layers_cases.py")


def test_on_virtual_devices():
  run_cases(CASES)


@pytest.mark.slow  # 25 minutes beside other jobs
def test_on_every_mesh():
  run_cases(CASES, which="slow", timeout=3_600)
