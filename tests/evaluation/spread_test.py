"""An evaluation on 8 virtual devices equals that on one."""

import pathlib

from tests.devices import FAST_AND_SLOW, run_cases


@FAST_AND_SLOW
def test_on_virtual_devices(which):
  run_cases(pathlib.Path(__file__).with_name("spread_cases.py"), which=which)
