"""Bytes that a training step needs on each device, without compiling it.

Parameters and optimizer state are exact: the shapes of the real state, cut by
the real sharding table. The rest is arithmetic on what the step keeps. Per
device, with m tokens of a micro-batch, c bytes of the compute type, t devices
along `tensor`, and the letters of `models/flops.py`:

  gradients   one float32 per parameter, split like it
  saved, remat = block
              c m D for each block, the encoder and each group;
              each group's selection, 9 m G K, and what it read, c m N H;
              keys and values 2 c m G H
  saved, remat = offload
              selections, keys and values as in `block`, and the inputs of two
              blocks that come and go; all inputs lie with the host
  saved, remat = none
              c m (4 D + (2 N H + 2 P H + 3 F) / t) + 4 m N keys / t for each
              block (norms, heads, MLP; float32 scores, of a whole context one
              pair of blocks at a time), and likewise for the encoder (keys:
              S + c) and each group (keys: S slots); a parallel block has one
              norm and no stream between its halves: 2 D in place of 4 D
  working     three float32 copies of the largest array: logits m V / t, or the
              scores of one layer, read or encoder that is recomputed, next to
              the inside of its block; of a long dense read those of one tile

The total counts gradients or the logits' copies, whichever is more: gradients
are made while the logits are already gone. What fuses and what is laid out with
padding the compiler decides: `training/aot.py` asks it.
"""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
from jax.sharding import AbstractMesh, AxisType

from hsa_jax.config import (
  BlockForm,
  Config,
  Mlp,
  ModelConfig,
  Remat,
  Residual,
  StageConfig,
  layers_of,
)
from hsa_jax.models import LanguageModel
from hsa_jax.models.flops import executed_lengths
from hsa_jax.models.mixers import MIXERS
from hsa_jax.ops.read import dense_recomputes, dense_tile
from hsa_jax.parallel import AXES, ShardingRow, mesh_shape, sharding_table
from hsa_jax.training.guard import run_optimizer
from hsa_jax.training.initial import empty_kept
from hsa_jax.training.state import TrainState, abstract_state

COPIES = 3  # of logits or scores in float32: values, softmax, gradient
VISITING = 2  # offloaded inputs of blocks on the device: one leaves, one comes


class Footprint(NamedTuple):
  """Bytes on each device.

  Attributes:
    parameters: float32, exact.
    optimizer: its state between steps, and recurrent states that a step leaves
      to the next one; exact.
    gradients: float32.
    saved: activations kept for the backward pass.
    head: copies of the logits.
    block: inside of the block that needs most.
    visiting: of the optimizer's state, what comes from the host for the update.
    host: in the host's memory: that state, and offloaded activations.
  """

  parameters: int
  optimizer: int
  gradients: int
  saved: int
  head: int
  block: int
  visiting: int = 0
  host: int = 0

  @property
  def working(self) -> int:
    """Beyond what is kept: the logits first, gradients and blocks later."""
    inside = max(self.block, self.visiting)
    return max(self.head, self.gradients + inside)

  @property
  def total(self) -> int:
    """The peak."""
    return self.parameters + self.optimizer + self.saved + self.working


class Local(NamedTuple):
  """A device's share of a micro-batch.

  Attributes:
    rows: of the batch.
    tokens: rows times their length, of which each device of `context` has a
      part.
    tensor: devices that share each matrix product.
    size: bytes of the compute type.
  """

  rows: int
  tokens: int
  tensor: int
  size: int


def state_shapes(cfg: Config) -> TrainState:
  """Shapes and types of the whole training state; no array is made."""
  tx = run_optimizer(cfg)
  return abstract_state(
    lambda rngs: LanguageModel(cfg.model, rngs=rngs),
    tx,
    mesh=abstract_mesh((1,) * len(AXES)),  # type: ignore[arg-type],
    kept=empty_kept(cfg),
  )


def abstract_mesh(shape: Iterable[int]) -> AbstractMesh:
  """A mesh of devices that need not exist."""
  return AbstractMesh(
    tuple(shape), AXES, axis_types=(AxisType.Auto,) * len(AXES)
  )


def mesh_of(cfg: Config, num_devices: int) -> AbstractMesh:
  """The run's mesh on so many devices.

  Raises:
    ValueError: if its sizes do not multiply to them.
  """
  return abstract_mesh(mesh_shape(cfg.mesh, num_devices))


def sharding_rows(tree: Any, mesh: AbstractMesh) -> list[ShardingRow]:
  """The sharding table, where the mesh has no devices."""
  return list(sharding_table(tree, mesh))  # type: ignore[arg-type]


def unsplit(state: TrainState, mesh: AbstractMesh) -> list[ShardingRow]:
  """Matrices that `fsdp` leaves whole because it does not divide them."""
  if dict(mesh.shape)["fsdp"] == 1:
    return []
  return [
    row
    for row in sharding_rows(state.model, mesh)
    if row.name.endswith((".kernel", ".embedding"))
    and "fsdp" not in tuple(row.spec)
  ]


def footprint(
  cfg: Config,
  stage: StageConfig,
  state: TrainState,
  mesh: AbstractMesh,
  *,
  backend: str,
) -> Footprint:
  """Bytes on each device for steps of one stage.

  Args:
    cfg: the run.
    stage: length and batch.
    state: of `state_shapes`; it depends on the model and optimizer alone.
    mesh: of `mesh_of`.
    backend: what `auto` implementations are resolved for.
  """
  parameters = _bytes(state.model, mesh)
  optimizer = _bytes({"opt_state": state.opt_state}, mesh)
  away = optimizer if cfg.train.offload_optimizer else 0
  optimizer += _bytes({"kept": state.kept}, mesh)
  local = local_share(cfg, stage, mesh)
  saved, left = _saved(cfg.model, stage, local, backend)
  return Footprint(
    parameters=parameters,
    optimizer=optimizer - away,
    gradients=parameters,
    saved=saved,
    head=COPIES * 4 * local.tokens * cfg.model.vocab_size // local.tensor,
    block=_block(cfg.model, stage, local, backend),
    visiting=away,
    host=away + left,
  )


def local_share(cfg: Config, stage: StageConfig, mesh: AbstractMesh) -> Local:
  """What one device has of each micro-batch."""
  sizes = dict(mesh.shape)
  split = sizes["data"] * sizes["fsdp"] * cfg.train.grad_accum_steps
  rows = math.ceil(stage.batch_size / split)
  tokens = rows * math.ceil(stage.seq_len / sizes["context"])
  size = jax.numpy.dtype(cfg.model.compute_dtype).itemsize
  return Local(rows, tokens, sizes["tensor"], size)


def _bytes(tree: Any, mesh: AbstractMesh) -> int:
  return sum(row.bytes_per_device for row in sharding_rows(tree, mesh))


def _saved(
  cfg: ModelConfig, stage: StageConfig, local: Local, backend: str
) -> tuple[int, int]:
  """Activations kept on the device, and left with the host."""
  hsa = cfg.hsa
  groups, on = hsa.num_groups, 1 if hsa.num_groups else 0
  depth = cfg.num_lower_layers + cfg.num_upper_layers
  stream = local.size * cfg.embed_dim
  memory = 2 * local.size * hsa.num_memory_heads * cfg.head_dim
  chosen = 9 * hsa.num_memory_heads * hsa.top_k
  shared = on * memory + groups * chosen
  inputs = depth + groups + on
  if cfg.remat is not Remat.NONE:
    shared += groups * local.size * cfg.num_heads * cfg.head_dim
  if cfg.remat is Remat.BLOCK:
    return local.tokens * (inputs * stream + shared), 0
  if cfg.remat is Remat.OFFLOAD:
    near = min(inputs, VISITING) * stream
    return local.tokens * (near + shared), local.tokens * inputs * stream
  layers, encoder, read = _insides(cfg, stage, local, backend, copies=1)
  inside = sum(layers) + on * encoder + groups * read
  return math.ceil(local.tokens * (inside + shared)), 0


def _block(
  cfg: ModelConfig, stage: StageConfig, local: Local, backend: str
) -> int:
  """The block that is being differentiated: its inside, or its scores."""
  copies = COPIES - 1 if cfg.remat is Remat.NONE else COPIES
  layers, encoder, read = _insides(cfg, stage, local, backend, copies=copies)
  return math.ceil(local.tokens * max(*layers, encoder, read))


def _insides(
  cfg: ModelConfig,
  stage: StageConfig,
  local: Local,
  backend: str,
  *,
  copies: int,
) -> tuple[list[float], float, float]:
  """Bytes per token inside each block, the encoder, a group's read."""
  hsa, lengths = cfg.hsa, executed_lengths(cfg, stage.seq_len, backend)
  heads = 2 * (cfg.num_heads + cfg.num_kv_heads) * cfg.head_dim
  score = copies * 4 * cfg.num_heads / local.tensor

  def inside(heads: float, mlp_dim: int, streams: int = 4) -> float:
    wide = (heads + 3 * mlp_dim) / local.tensor
    return local.size * (streams * cfg.embed_dim + wide)

  streams = 2 if cfg.block is BlockForm.PARALLEL else 4
  depth = cfg.num_lower_layers + cfg.num_upper_layers
  layers = []
  for mixer, own, mlp in layers_of(cfg, 0, depth):
    kind = MIXERS[mixer]
    keys = kind.stored_keys(own, stage.seq_len, backend) * kind.heads(own)
    mlp_dim = own.mlp_dim if mlp is Mlp.GATED else 0
    layers.append(
      inside(kind.widths(own), mlp_dim, streams)
      + copies * 4 * keys / local.tensor
    )
  if not hsa.num_groups:
    return layers, 0.0, 0.0
  layer = inside(heads, hsa.encoder_mlp_dim) + score * (hsa.chunk_size + 1)
  encoder = hsa.encoder_layers * layer * (1 + 1 / hsa.chunk_size)
  own = 2 * cfg.num_heads * cfg.head_dim
  keys = hsa.chunk_size * lengths.slots
  if lengths.slots > hsa.top_k and dense_recomputes(
    stage.seq_len, cfg.num_heads
  ):
    # The last tile sees all chunks; the mean is over all tiles.
    keys = dense_tile(stage.seq_len)
  mlp_dim = 0 if hsa.residual is Residual.PLAIN else cfg.mlp_dim
  return layers, encoder, inside(own, mlp_dim) + score * keys
