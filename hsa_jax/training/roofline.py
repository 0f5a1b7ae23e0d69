"""The least time that a training step can take on given chips.

Four things must happen, and at best all at once; the slowest is the floor:

  compute   executed operations, forward and backward (3 times forward), and
            where blocks are computed again them once more, at the bfloat16 peak
  memory    parameters, gradients and optimizer state read and written once;
            weights read in every pass; saved activations and logits written
            and read
  links     collectives between chips of one slice or node
  network   what crosses slices or nodes

Collectives, as bytes that a device receives. With P float elements of the
parameters that a device works with (whole over fsdp, split over tensor), c
bytes of the compute type, u micro-batches, f, d, t devices along the axes, and
m D of the stream:

  gather parameters    2 u (f-1)/f c P        forward and backward
  reduce gradients     u (f-1)/f c P          over fsdp
                       2 (d-1)/d g P/f        over data: there and back
                       and of what fsdp does not split, there and back
  tensor               u 2 (t-1)/t c m D      for each half of a block (for both
                                              halves of a parallel one), in
                                              every pass

where g is c for matrices of products and 4 for embeddings and vectors, whose
gradients are summed in float32.

Of a collective over n devices of which k are joined by links, the links carry
(k-1)/k of the bytes, and each device brings 1/k of the rest over the network.
The devices of an axis lie together in the order of the axes, `tensor` closest.
Retrieval scores, elementwise work, the way to the host of what is offloaded,
latency, stragglers, data and the shape of the torus are left out: the time is a
bound, not a forecast.
"""

import math
from typing import NamedTuple

from jax.sharding import AbstractMesh

from hsa_jax.config import (
  BlockForm,
  Config,
  Mlp,
  Remat,
  Residual,
  StageConfig,
  layers_of,
)
from hsa_jax.models.flops import Flops, flops_per_token
from hsa_jax.parallel.chips import Topology
from hsa_jax.training.footprint import (
  Footprint,
  local_share,
  sharding_rows,
)
from hsa_jax.training.state import TrainState


class Transfer(NamedTuple):
  """Bytes that a device receives in one step.

  Attributes:
    name: what for.
    links: over the links of its slice or node.
    network: from other slices or nodes.
  """

  name: str
  links: float
  network: float


class Floor(NamedTuple):
  """Seconds of one step, each kind of work by itself.

  Attributes:
    compute: matrix products.
    memory: HBM traffic.
    links: collectives inside slices or nodes.
    network: collectives between them; inf where its rate is not published.
    transfers: the collectives.
    useful: operations of the whole step that the method asks for, per device.
    peak_flops: of a device.
  """

  compute: float
  memory: float
  links: float
  network: float
  transfers: tuple[Transfer, ...]
  useful: float
  peak_flops: float

  @property
  def step(self) -> float:
    """The floor of the step in seconds."""
    return max(self.compute, self.memory, self.links, self.network)

  @property
  def bound(self) -> str:
    """What takes longest."""
    names = ("compute", "memory", "links", "network")
    return max(names, key=lambda name: self._asdict()[name])

  @property
  def utilisation(self) -> float:
    """Model-FLOPs utilisation of a step that takes no longer than the floor."""
    return self.useful / (self.step * self.peak_flops)


class Axis(NamedTuple):
  """A mesh axis as its collectives see it.

  Attributes:
    size: devices along it.
    near: those of them that links join.
  """

  size: int
  near: int


def floor(
  cfg: Config,
  stage: StageConfig,
  state: TrainState,
  mesh: AbstractMesh,
  topology: Topology,
  needed: Footprint,
) -> Floor:
  """The least time of a step of one stage.

  Args:
    cfg: the run.
    stage: length and batch.
    state: of `state_shapes`.
    mesh: of `mesh_of`.
    topology: the chips.
    needed: of `footprint`.
  """
  backend = topology.chip.platform
  counted = flops_per_token(cfg.model, stage.seq_len, backend=backend)
  tokens = stage.batch_size * stage.seq_len / topology.num_devices
  moved = transfers(cfg, stage, state, mesh, topology)
  network = topology.chip.network_bytes_per_s
  beyond = sum(transfer.network for transfer in moved)
  rate = topology.chip.link_bytes_per_s / topology.chip.devices
  return Floor(
    compute=_executed(cfg, counted) * tokens / topology.peak_flops,
    memory=_traffic(cfg, stage, state, mesh, needed)
    / (topology.chip.hbm_bytes_per_s / topology.chip.devices),
    links=sum(transfer.links for transfer in moved) / rate,
    network=_seconds(beyond, network, topology.chip.devices),
    transfers=moved,
    useful=3 * counted.useful * tokens,
    peak_flops=topology.peak_flops,
  )


def transfers(
  cfg: Config,
  stage: StageConfig,
  state: TrainState,
  mesh: AbstractMesh,
  topology: Topology,
) -> tuple[Transfer, ...]:
  """The collectives of one step that are not nothing."""
  axes = _axes(mesh, topology.domain_devices)
  local, micro = local_share(cfg, stage, mesh), cfg.train.grad_accum_steps
  split, whole = _elements(state, mesh)
  fsdp = axes["fsdp"]
  halves = _tensor_halves(cfg)
  stream = local.size * local.tokens * cfg.model.embed_dim
  moved = (
    _transfer("gather parameters", 2 * micro * local.size * split, fsdp),
    _transfer(
      "reduce gradients (fsdp)", micro * local.size * (split + 2 * whole), fsdp
    ),
    _transfer(
      "reduce gradients (data)",
      2 * _gradient_bytes(state, mesh, local.size),
      axes["data"],
    ),
    _transfer("tensor", micro * halves * 2 * stream, axes["tensor"]),
  )
  return tuple(t for t in moved if t.links or t.network)


def _transfer(name: str, full: float, axis: Axis) -> Transfer:
  far = axis.size / axis.near
  return Transfer(
    name,
    full * (axis.near - 1) / axis.near,
    full * (far - 1) / far / axis.near,
  )


def _axes(mesh: AbstractMesh, domain: int) -> dict[str, Axis]:
  """Each axis, and how many of its devices one domain of links holds."""
  found, inner = {}, 1
  for name, size in reversed(list(mesh.shape.items())):
    near = math.gcd(size, max(1, domain // inner))
    found[name] = Axis(size, near)
    inner *= size
  return found


def _elements(state: TrainState, mesh: AbstractMesh) -> tuple[float, float]:
  """Parameters that a device works with: split over fsdp, and the others."""
  split = whole = 0.0
  size = dict(mesh.shape)["fsdp"]
  for row in sharding_rows(state.model, mesh):
    own = row.bytes_per_device / 4  # parameters are float32
    if "fsdp" in tuple(row.spec):
      split += own * size
    else:
      whole += own
  return split, whole


def _gradient_bytes(state: TrainState, mesh: AbstractMesh, size: int) -> float:
  """Bytes of a device's gradients as they are summed over data."""
  return sum(
    row.bytes_per_device / 4 * (size if row.name.endswith(".kernel") else 4)
    for row in sharding_rows(state.model, mesh)
  )


def _tensor_halves(cfg: Config) -> int:
  """Sums over `tensor` in a step: mixer and MLP of each block, per pass.

  Side by side the two are one sum.
  """
  model, hsa = cfg.model, cfg.model.hsa
  side_by_side = model.block is BlockForm.PARALLEL
  depth = model.num_lower_layers + model.num_upper_layers
  halves = sum(
    1 if side_by_side or layer.mlp is Mlp.NONE else 2
    for layer in layers_of(model, 0, depth)
  )
  if hsa.num_groups:
    read = 1 if hsa.residual is Residual.PLAIN else 2
    halves += read * hsa.num_groups + 2 * hsa.encoder_layers
  passes = 2 if model.remat is Remat.NONE else 3
  return halves * passes + 2  # and the vocabulary, forward and backward


def _executed(cfg: Config, counted: Flops) -> float:
  """Operations per token of a training step, with what is recomputed."""
  total = 3 * counted.executed
  if cfg.model.remat is not Remat.NONE:
    total += counted.executed - counted.executed_parts["head"]
  return total


def _traffic(
  cfg: Config,
  stage: StageConfig,
  state: TrainState,
  mesh: AbstractMesh,
  needed: Footprint,
) -> float:
  local, micro = local_share(cfg, stage, mesh), cfg.train.grad_accum_steps
  passes = 3 if cfg.model.remat is Remat.NONE else 4
  weights = passes * local.size * sum(_elements(state, mesh))
  logits = 2 * 4 * local.tokens * cfg.model.vocab_size / local.tensor
  update = 2 * (needed.parameters + needed.optimizer + needed.gradients)
  return update + micro * (weights + 2 * needed.saved + logits)


def _seconds(nbytes: float, rate: float | None, devices: int) -> float:
  if not nbytes:
    return 0.0
  return nbytes * devices / rate if rate else math.inf
