"""Where the chunks of a context can live, known before the first token.

`plan_memory` is arithmetic on a configuration and a number of bytes per place;
`available` looks at the machine.
"""

import enum
import os
import pathlib
import resource
import shutil
import sys
from typing import NamedTuple

import jax
import psutil

from hsa_jax.config import ModelConfig
from hsa_jax.memory.layout import (
  KvDtype,
  Layout,
  format_bytes,
  layout_of_config,
)
from hsa_jax.memory.protocol import MemoryBytes, MemoryHomeError
from hsa_jax.memory.sharded import KvPlace, slots_per_shard
from hsa_jax.memory.streamed import LandmarkPlace

# Of what is free, the share that chunks may take: the rest is for the model,
# its activations, and whatever else the machine does.
DEVICE_SHARE, HOST_SHARE, DISK_SHARE = 0.6, 0.7, 0.95


class Home(enum.StrEnum):
  """Where chunks live.

  AUTO takes the first that fits: the device, or where there are several all of
  them (sharded), then host, then disk.
  """

  AUTO = "auto"
  DEVICE = "device"
  SHARDED = "sharded"
  HOST = "host"
  DISK = "disk"


class Plan(NamedTuple):
  """A home, and what it takes.

  Attributes:
    home: never AUTO.
    layout: sizes of a chunk.
    num_chunks: chunks of the whole context.
    landmark_place: of the host and the disk home.
    needed: bytes by place: on each device where sharded, of the whole host.
    shards: devices that chunks are split over.
  """

  home: Home
  layout: Layout
  num_chunks: int
  landmark_place: LandmarkPlace
  needed: MemoryBytes
  shards: int = 1

  def __str__(self) -> str:
    split = self.home is Home.SHARDED and self.shards > 1
    names = {"device": f"on each of {self.shards} devices"} if split else {}
    places = [
      f"{format_bytes(count)} {names.get(name, name)}"
      for name, count in self.needed._asdict().items()
      if count
    ]
    kv = self.layout.kv_dtype
    stored = ""
    if kv is not KvDtype.COMPUTED:
      error = f"errors up to {self.layout.kv_error:.1%} of a chunk's largest"
      stored = f", keys and values as {kv} ({error})"
    return (
      f"memory={self.home}: {self.num_chunks} chunks,"
      f" {' + '.join(places) or 'no bytes'}{stored}"
    )


def plan_memory(
  cfg: ModelConfig,
  *,
  length: int,
  batch: int,
  home: Home,
  free: MemoryBytes,
  kv_dtype: KvDtype = KvDtype.COMPUTED,
  landmark_place: LandmarkPlace = LandmarkPlace.STORE,
  shards: int = 1,
  kv_place: KvPlace = KvPlace.DEVICE,
) -> Plan:
  """Picks or checks a home for the chunks of `batch` contexts.

  Args:
    cfg: the model.
    length: tokens per context.
    batch: contexts in memory at the same time.
    home: where to. AUTO never changes what is stored: the answers stay the
      same.
    free: bytes that are there, by place; see `available`.
    kv_dtype: how host and disk store keys and values.
    landmark_place: where host and disk keep landmarks.
    shards: devices that chunks can be split over.
    kv_place: where the sharded home keeps keys and values.

  Raises:
    MemoryHomeError: if nothing (or not the home asked for) fits; it names what
      is needed and what there is.
    ValueError: if a device home is to store another type than computed.
  """
  on_device = (Home.DEVICE, Home.SHARDED)
  if home in on_device and kv_dtype is not KvDtype.COMPUTED:
    raise ValueError(
      f"--kv-dtype={kv_dtype} with --memory={home}: only host and disk store"
      " keys and values in another type"
    )
  homes = [home]
  if home is Home.AUTO:
    homes = [Home.SHARDED if shards > 1 else Home.DEVICE, Home.HOST, Home.DISK]
    if kv_dtype is not KvDtype.COMPUTED:
      homes = homes[1:]
  layout = layout_of_config(cfg, batch=batch, kv_dtype=kv_dtype)
  chunks = length // cfg.hsa.chunk_size if cfg.hsa.num_groups else 0
  plans = [
    Plan(
      h,
      layout,
      chunks,
      landmark_place,
      bytes_needed(layout, chunks, h, landmark_place, shards, kv_place),
      shards if h is Home.SHARDED else 1,
    )
    for h in homes
  ]
  for plan in plans:
    if not _too_large(plan.needed, free):
      return plan
  raise MemoryHomeError(_explain(plans, free))


def bytes_needed(
  layout: Layout,
  num_chunks: int,
  home: Home,
  landmark_place: LandmarkPlace = LandmarkPlace.STORE,
  shards: int = 1,
  kv_place: KvPlace = KvPlace.DEVICE,
) -> MemoryBytes:
  """Bytes that the chunks take, by place.

  Sharded, device bytes are those of each device; keys and values in pinned
  host memory are those of all shards, which share the RAM of one host.
  """
  landmarks = num_chunks * layout.landmark_bytes
  records = num_chunks * layout.record_bytes
  if home is Home.DEVICE:
    return MemoryBytes(landmarks + records, 0, 0)
  if home is Home.SHARDED:
    slots = slots_per_shard(num_chunks, shards)
    landmarks, records = (
      slots * layout.landmark_bytes,
      slots * layout.record_bytes,
    )
    if kv_place is KvPlace.PINNED_HOST:
      return MemoryBytes(landmarks, shards * records, 0)
    return MemoryBytes(landmarks + records, 0, 0)
  on_device = landmark_place is LandmarkPlace.DEVICE
  device = landmarks if on_device else 0
  if home is Home.HOST:
    return MemoryBytes(device, records + landmarks - device, 0)
  return MemoryBytes(device, 0, records + landmarks)


def available(folder: str | os.PathLike[str] | None = None) -> MemoryBytes:
  """Free bytes of the fullest device, of RAM, and of the disk of `folder`.

  RAM is what is left under the limits of machine, container and process. CPU
  devices have an equal share of it each.
  """
  host, devices = _free_ram(), jax.local_devices()
  stats = [device.memory_stats() or {} for device in devices]
  device = host // len(devices)
  if all("bytes_limit" in s for s in stats):
    device = min(s["bytes_limit"] - s["bytes_in_use"] for s in stats)
  disk = 0
  if folder is not None:
    place = pathlib.Path(folder).absolute()
    while not place.exists():
      place = place.parent
    disk = shutil.disk_usage(place).free
  return MemoryBytes(device, host, disk)


def _free_ram() -> int:
  free = psutil.virtual_memory().available
  for limit, used in _CONTAINER_FILES:
    try:
      # "max" stands for no limit.
      total = int(pathlib.Path(limit).read_text())
      free = min(free, total - int(pathlib.Path(used).read_text()))
    except (OSError, ValueError):
      continue
  if sys.platform == "linux":
    most, _ = resource.getrlimit(resource.RLIMIT_AS)  # ulimit -v
    if most != resource.RLIM_INFINITY:
      free = min(free, most - psutil.Process().memory_info().vms)
  return max(free, 0)


_CONTAINER_FILES = (
  ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
  (
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    "/sys/fs/cgroup/memory/memory.usage_in_bytes",
  ),
)
_SHARES = MemoryBytes(DEVICE_SHARE, HOST_SHARE, DISK_SHARE)  # type: ignore[arg-type]


def _too_large(needed: MemoryBytes, free: MemoryBytes) -> list[str]:
  """Places where it does not fit, with both numbers."""
  return [
    f"{format_bytes(want)} {place} of {format_bytes(int(share * have))} usable"
    for place, want, have, share in zip(
      MemoryBytes._fields, needed, free, _SHARES, strict=True
    )
    if want > share * have
  ]


def _explain(plans: list[Plan], free: MemoryBytes) -> str:
  tried = "; ".join(
    f"--memory={p.home} needs {' and '.join(_too_large(p.needed, free))}"
    for p in plans
  )
  layout, chunks = plans[0].layout, plans[0].num_chunks
  others = [
    h for h in (Home.HOST, Home.DISK) if h not in {p.home for p in plans}
  ]
  fits = [
    f"--memory={h}"
    for h in others
    if not _too_large(bytes_needed(layout, chunks, h), free)
  ]
  small = layout._replace(kv_dtype=KvDtype.INT8)
  fits += [
    f"--memory={h} --kv-dtype=int8"
    for h in (Home.HOST, Home.DISK)
    if not _too_large(bytes_needed(small, chunks, h), free)
  ]
  advice = f"{fits[0]} fits" if fits else "shorten the context or the batch"
  return f"{chunks} chunks do not fit: {tried}. {advice[0].upper()}{advice[1:]}"
