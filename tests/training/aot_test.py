"""Every pod of every configuration compiles, within its stored budget.

The budgets are of the quick compilation (`aot.QUICK`), in GiB of HBM per
device; null where none was stored yet: then it must fit the chip.
"""

import dataclasses
import json
import pathlib

import pytest

from hsa_jax.cli import config_flag
from hsa_jax.config import HsaConfig, MeshConfig, Remat, StageConfig, validate
from hsa_jax.parallel.chips import GIB, parse_topology
from hsa_jax.training import aot

from .footprint_test import STAGE, config

# ml_collections loads the file in a way that Python will drop.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module")

HERE = pathlib.Path(__file__).parent
BUDGETS = json.loads((HERE / "aot_budgets.json").read_text())
V5E = parse_topology("v5e:4x4")


def read(name: str, *overrides: str):
  flags = ["test", f"--config=configs/{name}", *overrides]
  return config_flag.read_config(config_flag.parse(flags, lambda values: None))


def topology_of(budget: dict):
  return parse_topology(budget["topology"], slices=budget["slices"])


def name_of(budget: dict) -> str:
  return f"{budget['config']}@{topology_of(budget)}"


@pytest.mark.parametrize("budget", BUDGETS, ids=name_of)
def test_pods_are_valid(budget):
  cfg, topology = read(budget["config"]), topology_of(budget)
  validate(cfg, num_devices=topology.num_devices)
  stored = budget["peak_gib"]
  assert stored is None or stored * GIB < topology.hbm_bytes


def test_every_pod_has_a_budget():
  folder = HERE.parents[1] / "configs"
  pods = {p.name for p in folder.glob("*.py") if "Estimate:" in p.read_text()}
  assert pods == {budget["config"].split(":")[0] for budget in BUDGETS}


def test_auto_is_what_it_would_be_there():
  """A CPU would gather what a TPU reads densely."""
  model = dataclasses.replace(config().model, hsa=HsaConfig(top_k=8))
  cfg = dataclasses.replace(config(), model=model)
  stage = StageConfig(seq_len=64 * 64)
  for backend, wanted in (("cpu", "gather"), ("tpu", "dense")):
    resolved = aot.for_backend(cfg, stage, backend)
    assert resolved.model.hsa.implementation == wanted
  named = dataclasses.replace(model.hsa, implementation="reference")
  cfg = dataclasses.replace(cfg, model=dataclasses.replace(model, hsa=named))
  assert aot.for_backend(cfg, stage, "tpu") == cfg


@pytest.mark.parametrize(
  ("text", "needed", "available"),
  [
    ("memory (44.52G) exceeds available HBM (15.75G).", 44.52, 15.75),
    ("temporaries (512.00M) exceeds available HBM (0.25G)", 0.5, 0.25),
  ],
)
def test_the_compilers_refusal_is_read(text, needed, available):
  error = aot._explained(RuntimeError("RESOURCE_EXHAUSTED: " + text))
  assert isinstance(error, aot.OverBudget)
  assert error.needed == int(needed * GIB)
  assert error.available == int(available * GIB)


def test_another_error_stays_itself():
  error = RuntimeError("INTERNAL: something else")
  assert aot._explained(error) is error


@pytest.mark.aot
@pytest.mark.slow
@pytest.mark.parametrize("budget", BUDGETS, ids=name_of)
def test_pods_compile_within_their_budgets(budget):
  pytest.importorskip("libtpu")
  cfg, topology = read(budget["config"]), topology_of(budget)
  (stage,) = cfg.data.stages
  found = aot.compile_step(cfg, stage, topology, effort=aot.QUICK)
  got = found.peak / GIB
  assert found.peak < topology.hbm_bytes, f"{got:.2f} GiB"
  if budget["peak_gib"] is not None:
    assert got == pytest.approx(budget["peak_gib"], rel=0.1)
  assert found.collectives


@pytest.mark.aot
@pytest.mark.parametrize("axis", ["data", "fsdp"])
def test_a_small_step_compiles_for_a_pod(axis):
  """Both ways to use a pod; what fails here fails on every TPU."""
  pytest.importorskip("libtpu")
  stage = dataclasses.replace(STAGE, batch_size=32)
  mesh = dataclasses.replace(MeshConfig(data=1), **{axis: 16})
  found = aot.compile_step(config(mesh), stage, V5E, effort=aot.QUICK)
  assert 0 < found.arguments < found.peak < GIB
  assert found.host == 0 and found.collectives


@pytest.mark.aot
def test_what_is_offloaded_leaves_the_device():
  """A policy that names what nobody keeps would move nothing, silently."""
  pytest.importorskip("libtpu")
  model = {"num_lower_layers": 6, "num_upper_layers": 6}
  stage = dataclasses.replace(STAGE, batch_size=32, seq_len=1024)

  def compiled(remat, optimizer):
    cfg = config(remat=remat, **model)
    train = dataclasses.replace(cfg.train, offload_optimizer=optimizer)
    cfg = dataclasses.replace(cfg, train=train)
    return aot.compile_step(cfg, stage, V5E, effort=aot.QUICK)

  near = compiled(Remat.BLOCK, optimizer=False)
  far = compiled(Remat.OFFLOAD, optimizer=False)
  assert near.host == 0
  assert far.host >= 12 * 2 * 1024 * 32 * 2  # inputs of 12 blocks, bfloat16
  moments = compiled(Remat.BLOCK, optimizer=True)
  assert moments.host > near.arguments // 2
  assert moments.arguments < near.arguments // 2


@pytest.mark.aot
def test_a_topology_that_is_none_is_refused():
  pytest.importorskip("libtpu")
  with pytest.raises(aot.CannotCompile, match="libtpu refuses v5e:1x3"):
    aot.topology_mesh(config(), parse_topology("v5e:1x3"))
