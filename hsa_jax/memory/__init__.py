"""Homes of the chunk memory; all give the same answer on the same input."""

from hsa_jax.memory.device import DeviceMemory
from hsa_jax.memory.disk import DiskMemory
from hsa_jax.memory.header import DamagedError
from hsa_jax.memory.host import HostMemory
from hsa_jax.memory.layout import KvDtype
from hsa_jax.memory.make import make_memory
from hsa_jax.memory.plan import Home, Plan, available, plan_memory
from hsa_jax.memory.protocol import ChunkMemory, MemoryBytes, MemoryHomeError
from hsa_jax.memory.rank import NO_RANK, rank_chunks
from hsa_jax.memory.recording import Detail, Read, RecordingMemory, Search
from hsa_jax.memory.sharded import (
  KvPlace,
  Placement,
  ShardedMemory,
  check_placement,
)
from hsa_jax.memory.streamed import LandmarkPlace

__all__ = [
  "ChunkMemory",
  "NO_RANK",
  "DamagedError",
  "Detail",
  "DeviceMemory",
  "DiskMemory",
  "Home",
  "HostMemory",
  "KvDtype",
  "KvPlace",
  "LandmarkPlace",
  "MemoryBytes",
  "MemoryHomeError",
  "Placement",
  "Plan",
  "Read",
  "RecordingMemory",
  "Search",
  "ShardedMemory",
  "available",
  "check_placement",
  "make_memory",
  "plan_memory",
  "rank_chunks",
]
