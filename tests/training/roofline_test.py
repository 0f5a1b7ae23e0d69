"""The least time of a step, by hand and by brute force."""

import itertools
import math

import pytest

from hsa_jax.config import BlockForm, LayerConfig, MeshConfig, Mlp, Remat
from hsa_jax.models.flops import flops_per_token
from hsa_jax.parallel import AXES, named_leaves
from hsa_jax.parallel.chips import CHIPS, Topology, of_chips
from hsa_jax.training import roofline
from hsa_jax.training.footprint import (
  abstract_mesh,
  footprint,
  mesh_of,
  state_shapes,
)

from .footprint_test import MODEL, STAGE, config, whole_parameters


def least(cfg, topology: Topology) -> roofline.Floor:
  state, mesh = state_shapes(cfg), mesh_of(cfg, topology.num_devices)
  needed = footprint(cfg, STAGE, state, mesh, backend="tpu")
  return roofline.floor(cfg, STAGE, state, mesh, topology, needed)


def moved(cfg, topology: Topology) -> dict[str, roofline.Transfer]:
  return {t.name: t for t in least(cfg, topology).transfers}


def chips(name: str, count: int) -> Topology:
  return of_chips(CHIPS[name], count)


def test_one_chip_sends_nothing():
  got = least(config(), chips("v5e", 1))
  assert got.transfers == () and got.links == got.network == 0


def test_compute_by_hand():
  counted = flops_per_token(MODEL, 64, backend="tpu")
  blocks = counted.executed - counted.executed_parts["head"]
  tokens = 16 * 64 / 8
  got = least(config(), chips("v5e", 8))
  seconds = (3 * counted.executed + blocks) * tokens / 197e12
  assert got.compute == pytest.approx(seconds)
  none = least(config(remat=Remat.NONE), chips("v5e", 8))
  assert none.compute == pytest.approx(3 * counted.executed * tokens / 197e12)


def test_gradients_over_data_by_hand():
  """7/8 of them there and 7/8 back: bfloat16 from products, else float32."""
  got = moved(config(), chips("v5e", 8))
  assert list(got) == ["reduce gradients (data)"]
  links = got["reduce gradients (data)"].links
  assert links == 2 * 7 / 8 * _gradient_bytes()


def test_parameters_over_fsdp_by_hand():
  cfg = config(MeshConfig(data=1, fsdp=8), parts=2)
  got = moved(cfg, chips("v5e", 8))
  vectors = 4 * _vectors()
  matrices = whole_parameters() - vectors
  gather = got["gather parameters"].links
  # In bfloat16, forward and backward, in both micro-batches.
  assert gather == 2 * 2 * 7 / 8 * matrices / 2
  reduce = got["reduce gradients (fsdp)"].links
  assert reduce == 2 * 7 / 8 * (matrices / 2 + 2 * vectors / 2)


def _gradient_bytes() -> int:
  wide = 4 * (_vectors() + 512 * 32)  # the token table has 512 rows
  return wide + (whole_parameters() - wide) // 2


def _vectors() -> int:
  leaves = named_leaves(state_shapes(config()).model).items()
  return sum(
    math.prod(leaf.shape)
    for name, leaf in leaves
    if not name.endswith((".kernel", ".embedding"))
  )


def test_sums_over_tensor_by_hand():
  """Two halves of 4 window blocks, an encoder layer and a read; 3 passes."""
  cfg = config(MeshConfig(data=-1, tensor=2))
  got = moved(cfg, chips("v5e", 8))["tensor"]
  stream = 2 * (4 * 64) * 32
  assert got.links == (2 * 6 * 3 + 2) * 2 * stream / 2
  cfg = config(MeshConfig(data=-1, tensor=2), block=BlockForm.PARALLEL)
  got = moved(cfg, chips("v5e", 8))["tensor"]
  # The halves of a window block are one sum.
  assert got.links == ((4 + 2 * 2) * 3 + 2) * 2 * stream / 2
  layers = (LayerConfig(mlp=Mlp.NONE), LayerConfig())
  cfg = config(MeshConfig(data=-1, tensor=2), layers=layers)
  got = moved(cfg, chips("v5e", 8))["tensor"]
  assert got.links == ((2 + 2 * 4) * 3 + 2) * 2 * stream / 2


@pytest.mark.parametrize("domain", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("sizes", [(4, 2, 1, 2), (1, 16, 1, 1), (2, 4, 1, 2)])
def test_how_many_of_an_axis_links_join(sizes, domain):
  """Counted device by device, in the order of the mesh."""
  axes = roofline._axes(abstract_mesh(sizes), domain)
  places = list(itertools.product(*map(range, sizes)))
  for i, name in enumerate(AXES):
    line = [k for k, p in enumerate(places) if sum(p) == p[i]]
    near = sum(k // domain == 0 for k in line)
    assert axes[name] == roofline.Axis(sizes[i], near)


def test_slices_send_their_share_over_the_network():
  """A slice's sum is split over its chips before it leaves."""
  got = moved(config(), chips("v5e", 512))["reduce gradients (data)"]
  full = 2 * _gradient_bytes()
  assert got.links == pytest.approx(full * 255 / 256)
  assert got.network == pytest.approx(full / 2 / 256)


def test_a_network_that_is_not_published_is_no_free_lunch():
  topology = Topology(CHIPS["v4"], (8,), 2)
  got = least(config(), topology)
  assert math.isinf(got.network) and got.bound == "network"


def test_two_devices_of_a_chip_share_its_links():
  """What eight devices do on 8 chips takes twice as long on 4."""
  one = CHIPS["v5p"]
  two = one._replace(devices=2)
  whole = least(config(), Topology(one, (8,)))
  halves = least(config(), Topology(two, (4,)))
  for name in ("compute", "memory", "links"):
    assert halves._asdict()[name] == pytest.approx(2 * whole._asdict()[name])


def test_the_slowest_sets_the_floor_and_the_utilisation():
  got = least(config(), chips("v5e", 8))
  times = {n: got._asdict()[n] for n in ("compute", "memory", "links")}
  assert got.step == max(times.values()) == times[got.bound]
  useful = 3 * flops_per_token(MODEL, 64, backend="tpu").useful
  share = useful * 16 * 64 / 8 / got.step / 197e12
  assert got.utilisation == pytest.approx(share)
  assert 0 < got.utilisation < 1


def test_a_network_a_thousand_times_slower_shows():
  slow = CHIPS["h100"]._replace(network_bytes_per_s=1e6)
  fast = least(config(), Topology(CHIPS["h100"], (16,)))
  got = least(config(), Topology(slow, (16,)))
  assert got.network == pytest.approx(fast.network * 50e9 / 1e6)
  assert got.links == fast.links
