"""Layers of every kind on 8 virtual devices."""

import pathlib

from tests.devices import FAST_AND_SLOW, run_cases


@FAST_AND_SLOW
def test_on_virtual_devices(which):
  cases = pathlib.Path(__file__).with_name("layers_cases.py")
  run_cases(cases, which=which, timeout=7200)
