"""Names of topologies, and the table behind them."""

import pytest

from hsa_jax.parallel.chips import (
  CHIPS,
  GIB,
  TopologyError,
  chip_of_device,
  of_chips,
  parse_topology,
  peak_flops,
)


@pytest.mark.parametrize(
  ("text", "chips", "devices", "domain"),
  [
    ("v5e:16x16", 256, 256, 256),
    ("v5litepod:4x4", 16, 16, 16),
    ("v5p:4x4x4", 64, 64, 64),
    ("v5p:64", 64, 64, 64),
    ("tpu7x:2x2x1", 4, 8, 8),
    ("H100:16", 16, 16, 8),
    ("b200:4", 4, 4, 4),
  ],
)
def test_chips_devices_and_what_links_join(text, chips, devices, domain):
  topology = parse_topology(text)
  assert topology.num_chips == chips
  assert topology.num_devices == devices
  assert topology.domain_devices == domain


def test_slices_multiply_chips_but_not_what_links_join():
  topology = parse_topology("v5e:16x16", slices=2)
  assert (topology.num_chips, topology.domain_devices) == (512, 256)
  assert str(topology) == "2 slices of v5e:16x16"


def test_two_devices_share_a_chip():
  topology = parse_topology("tpu7x:2x2x1")
  assert topology.hbm_bytes == 96 * GIB
  assert topology.peak_flops == CHIPS["tpu7x"].peak_flops / 2


@pytest.mark.parametrize(
  ("text", "slices", "said"),
  [
    ("v5e-256", 1, "write v5e:256"),
    ("v5p-128", 1, "write v5p:64"),  # its name counts cores
    ("v6litepod-16", 1, "write v6e:16"),
    ("v5e", 1, "must be CHIP:SHAPE"),
    ("v9:4x4", 1, "chip 'v9' is not one of v4, v5e"),
    ("v5p:4x4", 1, "v5p:axbxc"),
    ("v5e:32x32", 1, "a pod of v5e has 256; use --slices=4"),
    ("v5e:0x4", 1, "at least 1"),
    ("v5e:4x4", 0, "at least 1"),
    ("h100:8", 2, "GPUs have no slices"),
    ("h100:8x2", 1, "a count of chips"),
  ],
)
def test_what_cannot_be_is_said(text, slices, said):
  with pytest.raises(TopologyError) as caught:
    parse_topology(text, slices=slices)
  assert said in str(caught.value) and repr(text) in str(caught.value)


def test_chips_come_in_as_few_slices_as_they_can():
  v5e = CHIPS["v5e"]
  assert of_chips(v5e, 256).slices == 1
  assert of_chips(v5e, 4096).slices == 16
  assert of_chips(CHIPS["h100"], 64).slices == 1
  with pytest.raises(TopologyError, match="slices of up to 256"):
    of_chips(v5e, 257)


@pytest.mark.parametrize(
  ("kind", "name"),
  [
    ("TPU v4", "v4"),
    ("TPU v5 lite", "v5e"),
    ("TPU v5", "v5p"),
    ("TPU v5p", "v5p"),
    ("TPU v6 lite", "v6e"),
    ("TPU7x", "tpu7x"),
    ("NVIDIA A100-SXM4-80GB", "a100"),
    ("NVIDIA H100 80GB HBM3", "h100"),
    ("NVIDIA H200", "h200"),
  ],
)
def test_device_kinds(kind, name):
  chip = chip_of_device(kind)
  assert chip is CHIPS[name]
  assert peak_flops(kind) == chip.peak_flops / chip.devices


def test_an_unknown_device_has_no_peak():
  assert chip_of_device("cpu") is None and peak_flops("cpu") is None


def test_the_table_is_of_one_magnitude():
  """A slip of a unit would leave these bounds."""
  for chip in CHIPS.values():
    assert 1e14 < chip.peak_flops < 1e16
    assert 15 * GIB < chip.hbm_bytes < 200 * GIB
    # Operations per byte at which a product stops being bound by memory.
    assert 100 < chip.peak_flops / chip.hbm_bytes_per_s < 600
    assert 0.05 < chip.link_bytes_per_s / chip.hbm_bytes_per_s < 0.3
