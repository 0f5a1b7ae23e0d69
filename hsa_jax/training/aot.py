"""The real training step, compiled for chips that are not here.

libtpu compiles for any TPU topology on any machine. What comes back is what the
compiler will do there: the peak of memory per device and the collectives. It
says nothing of speed or of numbers.
"""

import dataclasses
import importlib.metadata
import importlib.util
import os
import re
import time
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies
from jax.sharding import Mesh

from hsa_jax.config import Config, StageConfig
from hsa_jax.models import LanguageModel
from hsa_jax.ops import read as read_ops
from hsa_jax.parallel import make_mesh
from hsa_jax.parallel.chips import Topology
from hsa_jax.training.collectives import Collective, read_collectives
from hsa_jax.training.guard import run_optimizer
from hsa_jax.training.initial import empty_kept
from hsa_jax.training.program import StepPrograms, abstract_batch
from hsa_jax.training.state import abstract_state

# Optimisation effort of the compiler: the quick one answers whether a step
# compiles, in a fraction of the time; its peaks lie up to a quarter lower.
QUICK, FULL = -1.0, 0.0
# libtpu looks for a TPU and for its peers, and locks itself, unless told.
_ENVIRONMENT = {
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
  "TPU_SKIP_MDS_QUERY": "1",
  "TPU_ACCELERATOR_TYPE": "v5litepod-16",
  "TPU_WORKER_HOSTNAMES": "localhost",
  "TPU_STDERR_LOG_LEVEL": "3",
  "TPU_LOG_DIR": "disabled",
}
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_EXHAUSTED = re.compile(
  r"\(([\d.]+)([KMGT]?)\) exceeds available HBM \(([\d.]+)([KMGT]?)\)"
)


class CannotCompile(RuntimeError):
  """No compiler for these chips here, or a topology that it refuses."""


class OverBudget(RuntimeError):
  """The step does not fit.

  Attributes:
    needed: bytes per device, arguments included.
    available: bytes per device.
  """

  def __init__(self, needed: int, available: int):
    self.needed, self.available = needed, available
    super().__init__(f"needs {needed} bytes of {available} on each device")


class Compiled(NamedTuple):
  """What the compiler says of a step, per device.

  Attributes:
    peak: bytes of HBM, arguments included.
    arguments: bytes of state and batch.
    host: bytes in the host's memory.
    collectives: by kind, bytes received in one step.
    compiler: its name and version.
    seconds: that compiling took.
  """

  peak: int
  arguments: int
  host: int
  collectives: tuple[Collective, ...]
  compiler: str
  seconds: float


def missing(topology: Topology) -> str | None:
  """What a compilation for these chips lacks here; None if nothing."""
  if topology.chip.platform != "tpu":
    return "steps are compiled ahead of time for TPUs only"
  if len(topology.shape) == 1 and topology.chip.dimensions > 1:
    return "a count of chips has no layout; give the shape of a slice"
  if importlib.util.find_spec("libtpu") is None:
    return 'libtpu is not installed; it comes with pip install -e ".[tpu]"'
  return None


def topology_mesh(cfg: Config, topology: Topology) -> Mesh:
  """The run's mesh on the devices of a topology.

  Raises:
    CannotCompile: if libtpu has no such topology, or counts devices otherwise.
    ValueError: if the mesh does not fit it.
  """
  for name, value in _ENVIRONMENT.items():
    os.environ.setdefault(name, value)
  extra = {"num_slices": topology.slices} if topology.slices > 1 else {}
  try:
    found = topologies.get_topology_desc(
      platform="tpu", topology_name=topology.name, **extra
    )
  except (RuntimeError, ValueError) as error:
    line = str(error).splitlines()[0]
    raise CannotCompile(f"libtpu refuses {topology}: {line}") from error
  devices = list(found.devices)
  if len(devices) != topology.num_devices:
    raise CannotCompile(
      f"libtpu counts {len(devices)} devices in {topology}, not"
      f" {topology.num_devices}: what it compiled would not be this run"
    )
  return make_mesh(cfg.mesh, devices=devices)


def compile_step(
  cfg: Config,
  stage: StageConfig,
  topology: Topology,
  *,
  effort: float = FULL,
) -> Compiled:
  """Lowers and compiles the step of one stage.

  Args:
    cfg: validated for the devices of the topology.
    stage: length and batch.
    topology: TPUs; see `missing`.
    effort: `FULL` for the memory it will need, `QUICK` for whether it compiles.

  Raises:
    CannotCompile: see `topology_mesh`.
    OverBudget: if the compiler finds that it does not fit.
  """
  mesh = topology_mesh(cfg, topology)
  cfg = for_backend(cfg, stage, topology.chip.platform)
  tx = run_optimizer(cfg)
  state = abstract_state(
    lambda rngs: LanguageModel(cfg.model, rngs=rngs),
    tx,
    mesh=mesh,
    host_optimizer=cfg.train.offload_optimizer,
    kept=empty_kept(cfg),
  )
  start = time.perf_counter()
  with jax.set_mesh(mesh):
    programs = StepPrograms(cfg, tx, state, mesh=mesh)
    lowered = programs.lower(programs.pack(state), abstract_batch(stage, mesh))
    options: dict[str, Any] = {"exec_time_optimization_effort": effort}
    try:
      program = lowered.compile(options)
    except jax.errors.JaxRuntimeError as error:
      raise _explained(error) from error
  return _read(program, time.perf_counter() - start)


def for_backend(cfg: Config, stage: StageConfig, backend: str) -> Config:
  """The run with `auto` as it is resolved there, and not as it is here."""
  hsa = cfg.model.hsa
  if hsa.implementation != "auto" or not hsa.num_groups:
    return cfg
  implementation = read_ops.pick_implementation(
    num_chunks=stage.seq_len // hsa.chunk_size,
    top_k=hsa.top_k,
    backend=backend,
  )
  hsa = dataclasses.replace(hsa, implementation=implementation)
  return dataclasses.replace(cfg, model=dataclasses.replace(cfg.model, hsa=hsa))


def _explained(error: Exception) -> Exception:
  """`OverBudget` where memory is what is missing; else the error itself."""
  match = _EXHAUSTED.search(str(error))
  if match is None:
    return error
  needed, available = (
    int(float(match[i]) * _UNITS[match[i + 1]]) for i in (1, 3)
  )
  return OverBudget(needed, available)


def _read(program: Any, seconds: float) -> Compiled:
  stats = program.memory_analysis()
  host = stats.host_argument_size_in_bytes + stats.host_temp_size_in_bytes
  return Compiled(
    # The peak counts what stays in host memory too.
    peak=stats.peak_memory_in_bytes - stats.host_argument_size_in_bytes,
    arguments=stats.argument_size_in_bytes,
    host=host,
    collectives=read_collectives(program.as_text()),
    compiler=f"libtpu {importlib.metadata.version('libtpu')}",
    seconds=seconds,
  )
