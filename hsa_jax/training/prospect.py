"""A run on chips that need not be here: does it fit, how fast can it be."""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import NamedTuple

from jax.sharding import AbstractMesh

from hsa_jax.config import Config, MeshConfig, Remat, StageConfig, fits_devices
from hsa_jax.parallel.chips import Chip, Topology, of_chips
from hsa_jax.training.footprint import (
  Footprint,
  footprint,
  mesh_of,
  state_shapes,
)
from hsa_jax.training.roofline import Floor, floor
from hsa_jax.training.state import TrainState

MAX_ACCUMULATION = 64


class Prospect(NamedTuple):
  """One stage of a run on one topology, by arithmetic.

  Attributes:
    cfg: the run.
    stage: of it.
    topology: the chips.
    mesh: devices along each axis.
    needed: bytes per device.
    floor: seconds of a step at best.
  """

  cfg: Config
  stage: StageConfig
  topology: Topology
  mesh: AbstractMesh
  needed: Footprint
  floor: Floor

  @property
  def missing(self) -> int:
    """Bytes of each device that lack; not above 0 where it fits."""
    return self.needed.total - self.topology.hbm_bytes

  @property
  def tokens_per_s(self) -> float:
    """Of one device, at best."""
    tokens = self.stage.batch_size * self.stage.seq_len
    return tokens / self.floor.step / self.topology.num_devices


class Change(NamedTuple):
  """Another setting of a run.

  Attributes:
    flags: that make it, as the command takes them.
    prospect: what comes of it.
  """

  flags: str
  prospect: Prospect


def look_ahead(
  cfg: Config,
  stage: StageConfig,
  topology: Topology,
  state: TrainState | None = None,
) -> Prospect:
  """Memory and time of the steps of one stage.

  Args:
    cfg: validated for the devices of the topology.
    stage: of `cfg`.
    topology: the chips.
    state: of `state_shapes(cfg)`, if it is at hand: mesh, batch and remat do
      not change it.
  """
  state = state_shapes(cfg) if state is None else state
  mesh = mesh_of(cfg, topology.num_devices)
  backend = topology.chip.platform
  needed = footprint(cfg, stage, state, mesh, backend=backend)
  least = floor(cfg, stage, state, mesh, topology, needed)
  return Prospect(cfg, stage, topology, mesh, needed, least)


def nearest_fit(
  prospect: Prospect, state: TrainState, *, compiled: int | None = None
) -> Change | None:
  """The smallest change under which the stage fits its devices, if any.

  Tried in this order, alone and then together: recompute blocks, more
  micro-batches, parameters split over more devices, products split over
  devices. The batch of a step stays what it is.

  Args:
    prospect: one that does not fit.
    state: of `state_shapes`.
    compiled: bytes that the compiler asked for; arithmetic is scaled to it.
  """
  scale = (compiled or 0) / prospect.needed.total
  scale = max(scale, 1.0) if compiled else 1.0
  base = prospect.cfg
  remats = [base.model.remat]
  if base.model.remat is Remat.NONE:
    remats.append(Remat.BLOCK)
  for mesh in _meshes(base, prospect.topology):
    for accumulation, remat in itertools.product(_accumulations(base), remats):
      cfg = changed(base, mesh=mesh, remat=remat, accumulation=accumulation)
      if not fits_devices(cfg, prospect.topology.num_devices):
        continue
      other = look_ahead(cfg, prospect.stage, prospect.topology, state)
      if scale * other.needed.total <= prospect.topology.hbm_bytes:
        return Change(flags_of(base, cfg), other)
  return None


def sweep(
  cfg: Config, stage: StageConfig, topology: Topology
) -> tuple[list[Change], int]:
  """What fits of batch x remat x mesh, fastest first, and how many do not.

  Batches are the stage's own, half, twice and four times it, in one piece.
  Offloaded activations are tried only where the run asks for them: the way to
  the host costs time that no floor here knows.
  """
  state = state_shapes(cfg)
  fitting, too_large = [], 0
  seen: set[tuple] = set()
  for change in _settings(cfg, stage, topology):
    prospect = look_ahead(
      change, _stage_of(change, cfg, stage), topology, state
    )
    key = (tuple(prospect.mesh.shape.values()), prospect.stage.batch_size)
    if (key, change.model.remat) in seen:
      continue
    seen.add((key, change.model.remat))
    if prospect.missing > 0:
      too_large += 1
    else:
      fitting.append(Change(flags_of(cfg, change), prospect))
  # Of equal speed, the one with more room.
  fitting.sort(
    key=lambda c: (-round(c.prospect.tokens_per_s), c.prospect.needed.total)
  )
  return fitting, too_large


def scaled(
  cfg: Config, stage: StageConfig, chip: Chip, counts: list[int], rows: int
) -> Iterator[Prospect]:
  """The same work per chip on more and more chips.

  Where fsdp is the free axis, several slices get one part each of the data
  axis, or as many as `mesh.data` says; a fixed fsdp is at most all devices.

  Args:
    cfg: the run.
    stage: length.
    chip: which.
    counts: numbers of chips.
    rows: of each device, in every step.

  Raises:
    TopologyError: for a number that does not fill equal slices.
  """
  state = state_shapes(cfg)
  for count in counts:
    topology = of_chips(chip, count)
    mesh = cfg.mesh
    if mesh.fsdp == -1:
      mesh = dataclasses.replace(mesh, data=max(mesh.data, topology.slices))
    elif mesh.fsdp > topology.num_devices:
      mesh = dataclasses.replace(mesh, fsdp=topology.num_devices)
    run = changed(cfg, mesh=mesh)
    shape = dict(mesh_of(run, topology.num_devices).shape)
    batch = rows * shape["data"] * shape["fsdp"]
    run = changed(run, batch=batch)
    own = dataclasses.replace(stage, batch_size=batch)
    yield look_ahead(run, own, topology, state)


def changed(
  cfg: Config,
  *,
  mesh: MeshConfig | None = None,
  remat: Remat | None = None,
  accumulation: int | None = None,
  batch: int | None = None,
) -> Config:
  """The run with other settings; `batch` is that of every stage."""
  stages = cfg.data.stages
  if batch is not None:
    stages = tuple(dataclasses.replace(s, batch_size=batch) for s in stages)
  remat = cfg.model.remat if remat is None else remat
  parts = cfg.train.grad_accum_steps if accumulation is None else accumulation
  return dataclasses.replace(
    cfg,
    mesh=mesh or cfg.mesh,
    model=dataclasses.replace(cfg.model, remat=remat),
    train=dataclasses.replace(cfg.train, grad_accum_steps=parts),
    data=dataclasses.replace(cfg.data, stages=stages),
  )


def flags_of(old: Config, new: Config) -> str:
  """The overrides that turn one run into another of `changed`."""
  pairs = [
    (f"mesh.{name}", getattr(old.mesh, name), getattr(new.mesh, name))
    for name in ("data", "fsdp", "context", "tensor")
  ]
  pairs += [
    ("model.remat", old.model.remat, new.model.remat),
    (
      "train.grad_accum_steps",
      old.train.grad_accum_steps,
      new.train.grad_accum_steps,
    ),
  ]
  for i, (before, after) in enumerate(
    zip(old.data.stages, new.data.stages, strict=True)
  ):
    name = f"data.stages[{i}].batch_size"
    pairs.append((name, before.batch_size, after.batch_size))
  return " ".join(
    f"--config.{name}={after}"
    for name, before, after in pairs
    if before != after
  )


def _accumulations(cfg: Config) -> list[int]:
  parts, found = cfg.train.grad_accum_steps, []
  while parts <= MAX_ACCUMULATION:
    if all(stage.batch_size % parts == 0 for stage in cfg.data.stages):
      found.append(parts)
    parts *= 2
  return found or [cfg.train.grad_accum_steps]


def _meshes(cfg: Config, topology: Topology) -> Iterator[MeshConfig]:
  """The run's own mesh; then more fsdp, then more tensor."""
  yield cfg.mesh
  tensors = _powers(topology.domain_devices, cfg.model.num_kv_heads)
  for tensor in tensors:
    for fsdp in _powers(topology.num_devices // tensor):
      if fsdp * tensor > 1:
        yield MeshConfig(data=-1, fsdp=fsdp, tensor=tensor)


def _settings(
  cfg: Config, stage: StageConfig, topology: Topology
) -> Iterator[Config]:
  batch = stage.batch_size
  batches = [n for n in (batch, batch // 2, 2 * batch, 4 * batch) if n]
  meshes = list(_meshes(cfg, topology))
  if cfg.mesh != MeshConfig():
    meshes.append(MeshConfig())
  remats = dict.fromkeys((Remat.NONE, Remat.BLOCK, cfg.model.remat))
  for mesh, remat, size in itertools.product(meshes, remats, batches):
    other = changed(cfg, mesh=mesh, remat=remat, accumulation=1, batch=size)
    if fits_devices(other, topology.num_devices):
      if dict(mesh_of(other, topology.num_devices).shape)["data"] % (
        topology.slices
      ):
        continue
      yield other


def _stage_of(new: Config, old: Config, stage: StageConfig) -> StageConfig:
  return new.data.stages[old.data.stages.index(stage)]


def _powers(limit: int, *of: int) -> list[int]:
  """1, 2, 4 ... up to the limit, that divide it and all of `of`."""
  found, power = [], 1
  while power <= limit:
    if limit % power == 0 and all(n % power == 0 for n in of):
      found.append(power)
    power *= 2
  return found
