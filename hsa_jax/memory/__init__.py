"""Homes of the chunk memory; all give the same answer on the same input."""

from hsa_jax.memory.device import DeviceMemory
from hsa_jax.memory.host import HostMemory
from hsa_jax.memory.layout import KvDtype
from hsa_jax.memory.protocol import ChunkMemory, MemoryBytes, MemoryHomeError
from hsa_jax.memory.recording import RecordingMemory

__all__ = [
  "ChunkMemory",
  "DeviceMemory",
  "HostMemory",
  "KvDtype",
  "MemoryBytes",
  "MemoryHomeError",
  "RecordingMemory",
]
