"""Runs the cases of `muon_cases.py` in a process with four devices."""

import pathlib

from tests.devices import run_cases


def test_cases_on_four_devices():
  cases = pathlib.Path(__file__).with_name("muon_cases.py")
  assert "4 passed" in run_cases(cases, devices=4, xla_flags="", timeout=600)
