"""Shapes and bytes of one chunk, from a configuration or from a block.

Everything that must agree on sizes takes them from here: the arrays in RAM, the
records of the file, the plan before a run.
"""

import enum
import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from hsa_jax.config import ModelConfig, RetrievalHeads
from hsa_jax.types import ChunkBlock


class KvDtype(enum.StrEnum):
  """How keys and values are stored outside the device."""

  COMPUTED = "computed"  # as the encoder made them: every home, equal answers
  BFLOAT16 = "bfloat16"  # half of float32; relative error below 2^-8
  INT8 = "int8"  # a quarter; error below 1/254 of the chunk's largest value


class Layout(NamedTuple):
  """What one chunk of every row of the batch consists of.

  Attributes:
    batch: rows.
    retrieval_heads, landmark_dim: shape of a landmark.
    chunk_size, memory_heads, head_dim: shape of its keys, and of its values.
    landmark_dtype, dtype: types of landmarks, and of keys and values.
    kv_dtype: how keys and values are stored.
  """

  batch: int
  retrieval_heads: int
  landmark_dim: int
  chunk_size: int
  memory_heads: int
  head_dim: int
  landmark_dtype: str
  dtype: str
  kv_dtype: KvDtype = KvDtype.COMPUTED

  @property
  def landmark(self) -> np.dtype:
    """One landmark of all rows."""
    shape = (self.batch, self.retrieval_heads, self.landmark_dim)
    return np.dtype((_numpy(self.landmark_dtype), shape))

  @property
  def record(self) -> np.dtype:
    """Keys and values of one chunk of one row, side by side."""
    stored = {KvDtype.COMPUTED: self.dtype}.get(self.kv_dtype, self.kv_dtype)
    shape = (self.chunk_size, self.memory_heads, self.head_dim)
    fields: list[Any] = [
      ("keys", _numpy(stored), shape),
      ("values", _numpy(stored), shape),
    ]
    if self.kv_dtype is KvDtype.INT8:
      fields.append(("scales", np.float32, (2, self.memory_heads)))
    return np.dtype(fields)

  @property
  def landmark_bytes(self) -> int:
    """Per chunk, all rows."""
    return self.landmark.itemsize

  @property
  def record_bytes(self) -> int:
    """Per chunk, all rows."""
    return self.batch * self.record.itemsize

  @property
  def kv_error(self) -> float:
    """Largest error of a stored key or value, as a share of the chunk's
    largest absolute one.
    """
    computed = _numpy(self.dtype).itemsize
    if self.kv_dtype is KvDtype.BFLOAT16 and computed > 2:
      return 2.0**-8
    return 1 / 254 if self.kv_dtype is KvDtype.INT8 else 0.0


def layout_of_config(
  cfg: ModelConfig, *, batch: int, kv_dtype: KvDtype = KvDtype.COMPUTED
) -> Layout:
  """The layout of the chunks that a model of this configuration makes."""
  hsa = cfg.hsa
  single = hsa.retrieval_heads is RetrievalHeads.SINGLE
  heads = 1 if single else hsa.num_memory_heads
  normed = hsa.landmark_norm  # normalised landmarks are kept in float32
  return Layout(
    batch,
    heads,
    hsa.landmark_dim // heads,
    hsa.chunk_size,
    hsa.num_memory_heads,
    cfg.head_dim,
    "float32" if normed else cfg.compute_dtype,
    cfg.compute_dtype,
    kv_dtype,
  )


def layout_of_block(
  block: ChunkBlock, kv_dtype: KvDtype = KvDtype.COMPUTED
) -> Layout:
  """The layout of a block's chunks."""
  batch, _, heads, dim = block.landmarks.shape
  chunk_size, memory_heads, head_dim = block.keys.shape[2:]
  return Layout(
    batch,
    heads,
    dim,
    chunk_size,
    memory_heads,
    head_dim,
    str(block.landmarks.dtype),
    str(block.keys.dtype),
    kv_dtype,
  )


def check_layout(held: Layout, block: ChunkBlock) -> None:
  """Raises `ValueError` unless `block` consists of such chunks."""
  new = layout_of_block(block, held.kv_dtype)
  differ = [
    f"{name} = {b} instead of {a}"
    for name, a, b in zip(Layout._fields, held, new, strict=True)
    if a != b
  ]
  if differ:
    raise ValueError(f"append: the block has {', '.join(differ)}")


def format_bytes(count: int) -> str:
  """`1.50 GiB`; the unit that leaves at most four digits before the point."""
  units = ("B", "KiB", "MiB", "GiB", "TiB")
  power = min(int(math.log(max(count, 1), 1024)), len(units) - 1)
  return f"{count / 1024**power:.{2 if power else 0}f} {units[power]}"


def _numpy(name: str) -> np.dtype:
  return np.dtype(jnp.dtype(name))
