"""What accelerators can do at best, and how many of them a name stands for.

Peaks are the makers' own: Google's pages on each Cloud TPU ("System
architecture": bf16 peak, memory, bidirectional interconnect and data-centre
network per chip; v5e's network is its pod's 6.4 Tbit/s over 256 chips) and
NVIDIA's data sheets (SXM boards; bf16 without sparsity, NVLink in both
directions, one 400 Gbit/s port per GPU of a DGX, 200 of
the A100's). Both directions are halved
here: a collective receives and sends at once.
"""

import math
import re
from typing import NamedTuple

GIB = 2**30


class Chip(NamedTuple):
  """One accelerator.

  Attributes:
    name: as in a topology, `v5e`.
    platform: of JAX, `tpu` or `gpu`.
    peak_flops: bfloat16 operations a second.
    hbm_bytes: memory.
    hbm_bytes_per_s: its bandwidth.
    link_bytes_per_s: to the other chips of a slice (TPU) or node (GPU), all
      links together, one direction.
    network_bytes_per_s: beyond the slice or node, one direction; None: not
      published.
    domain_chips: most chips that links join: a pod, or a node of GPUs.
    devices: that JAX sees in one chip.
    dimensions: of a topology's name.
  """

  name: str
  platform: str
  peak_flops: float
  hbm_bytes: int
  hbm_bytes_per_s: float
  link_bytes_per_s: float
  network_bytes_per_s: float | None
  domain_chips: int
  devices: int
  dimensions: int


_ROWS = (
  #     name platform  flops        memory    HBM/s  link/s  net/s  chips
  Chip("v4", "tpu", 275e12, 32 * GIB, 1.2e12, 300e9, None, 4096, 1, 3),
  Chip("v5e", "tpu", 197e12, 16 * GIB, 819e9, 200e9, 3.125e9, 256, 1, 2),
  Chip("v5p", "tpu", 459e12, 95 * GIB, 2.765e12, 600e9, 6.25e9, 8960, 1, 3),
  Chip("v6e", "tpu", 918e12, 32 * GIB, 1.638e12, 400e9, 12.5e9, 256, 1, 2),
  Chip("tpu7x", "tpu", 2307e12, 192 * GIB, 7.38e12, 600e9, 12.5e9, 9216, 2, 3),
  Chip("a100", "gpu", 312e12, 80 * 10**9, 2.039e12, 300e9, 25e9, 8, 1, 1),
  Chip("h100", "gpu", 989e12, 80 * 10**9, 3.35e12, 450e9, 50e9, 8, 1, 1),
  Chip("h200", "gpu", 989e12, 141 * 10**9, 4.8e12, 450e9, 50e9, 8, 1, 1),
  Chip("b200", "gpu", 2250e12, 180 * 10**9, 8e12, 900e9, 50e9, 8, 1, 1),
)
CHIPS = {chip.name: chip for chip in _ROWS}
_OTHER_NAMES = {
  "v5litepod": "v5e",
  "v6litepod": "v6e",
  "trillium": "v6e",
  "v7x": "tpu7x",
  "ironwood": "tpu7x",
}
# `device_kind` of JAX, in lower case; the longer of two that fit comes first.
_KINDS = (
  ("tpu v4", "v4"),
  ("tpu v5 lite", "v5e"),
  ("tpu v5e", "v5e"),
  ("tpu v5", "v5p"),
  ("tpu v6", "v6e"),
  ("tpu7x", "tpu7x"),
  ("tpu v7", "tpu7x"),
  ("a100", "a100"),
  ("h100", "h100"),
  ("h200", "h200"),
  ("b200", "b200"),
)
_EXAMPLES = "v5e:16x16, v5p:4x4x4 or h100:16"


class TopologyError(ValueError):
  """A topology that cannot be understood, or does not exist."""


class Topology(NamedTuple):
  """Chips that a run would have.

  Attributes:
    chip: of one kind.
    shape: chips along each dimension of a slice.
    slices: equal slices that a data-centre network joins.
  """

  chip: Chip
  shape: tuple[int, ...]
  slices: int = 1

  @property
  def name(self) -> str:
    """As the flag takes it: `v5e:16x16`."""
    return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"

  @property
  def num_chips(self) -> int:
    """Of all slices."""
    return math.prod(self.shape) * self.slices

  @property
  def num_devices(self) -> int:
    """What `jax.devices()` would hold."""
    return self.num_chips * self.chip.devices

  @property
  def domain_devices(self) -> int:
    """Devices that fast links join: of a slice, or of a node."""
    within = min(math.prod(self.shape), self.chip.domain_chips)
    return within * self.chip.devices

  @property
  def hbm_bytes(self) -> int:
    """Of one device."""
    return self.chip.hbm_bytes // self.chip.devices

  @property
  def peak_flops(self) -> float:
    """Of one device."""
    return self.chip.peak_flops / self.chip.devices

  def __str__(self) -> str:
    many = f"{self.slices} slices of " if self.slices > 1 else ""
    return f"{many}{self.name}"


def parse_topology(text: str, *, slices: int = 1) -> Topology:
  """`"v5e:16x16"` -> the topology.

  One number counts chips without saying how they are laid out, `"v5p:64"`:
  enough for arithmetic, and all there is to say of GPUs. Cloud names such as
  `v5p-128` count cores, two to a chip: they are refused, with the chips.

  Args:
    text: chip and shape of one slice.
    slices: how many of them.

  Raises:
    TopologyError: one line with what is known and what was meant.
  """
  match = re.fullmatch(r"([A-Za-z0-9]+):(\d+(?:x\d+)*)", text)
  if match is None:
    raise TopologyError(f"{text!r}: {_meant(text)}")
  name = match[1].lower()
  chip = CHIPS.get(_OTHER_NAMES.get(name, name))
  if chip is None:
    raise TopologyError(
      f"{text!r}: chip {match[1]!r} is not one of {', '.join(CHIPS)}"
    )
  shape = tuple(int(part) for part in match[2].split("x"))
  topology = Topology(chip, shape, slices)
  problem = _problem(topology)
  if problem:
    raise TopologyError(f"{text!r}: {problem}")
  return topology


def of_chips(chip: Chip, count: int) -> Topology:
  """So many chips, in as few slices as they come in.

  Raises:
    TopologyError: if they do not fill equal slices.
  """
  if chip.platform == "gpu" or count <= chip.domain_chips:
    return Topology(chip, (count,))
  slices = -(-count // chip.domain_chips)
  if count % slices:
    raise TopologyError(
      f"{count} chips: {chip.name} comes in slices of up to"
      f" {chip.domain_chips}, and {slices} equal ones do not make {count}"
    )
  return Topology(chip, (count // slices,), slices)


def chip_of_device(device_kind: str) -> Chip | None:
  """The chip behind JAX's `device_kind`; None for one that is not listed."""
  kind = device_kind.lower()
  name = next((name for part, name in _KINDS if part in kind), None)
  return CHIPS[name] if name else None


def peak_flops(device_kind: str) -> float | None:
  """Peak bfloat16 rate of one JAX device; None where it is not known."""
  chip = chip_of_device(device_kind)
  return chip.peak_flops / chip.devices if chip else None


def _problem(topology: Topology) -> str:
  chip, shape = topology.chip, topology.shape
  if min(*shape, topology.slices) < 1:
    return "sizes and slices must be at least 1"
  if len(shape) not in (1, chip.dimensions):
    form = "x".join("abc"[: chip.dimensions])
    return f"a slice of {chip.name} is {chip.name}:{form}, or a count of chips"
  if chip.platform == "gpu":
    return "GPUs have no slices: count all" if topology.slices > 1 else ""
  count = math.prod(shape)
  if count > chip.domain_chips:
    return (
      f"{count} chips, but a pod of {chip.name} has {chip.domain_chips}; use"
      f" --slices={-(-count // chip.domain_chips)} of a smaller shape"
    )
  return ""


def _meant(text: str) -> str:
  """What a text in another form may have been."""
  match = re.fullmatch(r"([A-Za-z0-9]+)-(\d+)", text)
  name = _OTHER_NAMES.get(match[1].lower(), match[1].lower()) if match else ""
  if match is None or name not in CHIPS:
    return f"must be CHIP:SHAPE, as in {_EXAMPLES}"
  # Names of these generations count cores.
  cores = 2 if name in ("v4", "v5p") else 1
  return f"must be CHIP:SHAPE; for its chips write {name}:" + str(
    int(match[2]) // cores
  )
