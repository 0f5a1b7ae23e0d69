"""Layers of every kind on 8 virtual devices."""

import pathlib

from tests.devices import run_cases


def test_on_virtual_devices():
  run_cases(pathlib.Path(__file__).with_name("layers_cases.py"))
