"""Room for layers that see the whole context: how much, and whether it is."""

from typing import Any

from hsa_jax.config import ModelConfig, layers_of
from hsa_jax.memory import MemoryHomeError, Plan, plan_memory
from hsa_jax.memory.layout import format_bytes
from hsa_jax.memory.plan import DEVICE_SHARE
from hsa_jax.memory.protocol import MemoryBytes
from hsa_jax.models.marks import stream_length
from hsa_jax.models.mixers import grows, state_bytes

# A call makes new caches of the old ones: for a moment there are both.
_COPIES = 2


def capacity_of(length: int) -> int:
  """Tokens that caches are made for: a little more, so that few sizes exist.

  Lengths from 2^k to 2^(k+1) share eight sizes, and none is more than an eighth
  too large; a program is compiled for each.
  """
  step = max(1 << max(length.bit_length() - 4, 0), 64)
  return -(-length // step) * step


def plan_context(
  cfg: ModelConfig,
  *,
  length: int,
  batch: int,
  free: MemoryBytes,
  **options: Any,
) -> Plan:
  """`memory.plan_memory`, once the caches of whole contexts are known to fit.

  Raises:
    MemoryHomeError: if they do not, or the chunks do not.
    ValueError: see `plan_memory`.
  """
  check_caches(cfg, length=length, batch=batch, free=free.device)
  return plan_memory(cfg, length=length, batch=batch, free=free, **options)


def check_caches(
  cfg: ModelConfig, *, length: int, batch: int, free: int
) -> None:
  """Refuses contexts whose caches do not fit on a device.

  Args:
    cfg: the model.
    length: tokens of the longest context, with what is written behind it.
    batch: contexts at the same time.
    free: bytes of the device; see `memory.available`.

  Raises:
    MemoryHomeError: with the length, both numbers of bytes, and what fits.
  """
  depth = cfg.num_lower_layers + cfg.num_upper_layers
  layers = [layer for layer in layers_of(cfg, 0, depth) if grows(layer)]
  capacity, usable = capacity_of(length), int(DEVICE_SHARE * free)
  rows = stream_length(cfg, capacity)
  needed = _COPIES * state_bytes(layers, batch=batch, capacity=rows)
  if needed <= usable:
    return
  fits = usable * capacity // needed
  advice = f"at most {fits:,} tokens fit; shorten the context"
  if batch > 1:
    advice += ", or read fewer at a time (--batch)"
  raise MemoryHomeError(
    f"{length:,} tokens: the caches of {len(layers)} layers that see the whole"
    f" context need {format_bytes(needed)} device of {format_bytes(usable)}"
    f" usable; {advice}, or use layers with a window"
  )
