"""Bytes by place, the choice of a home, and what is said when nothing fits."""

import dataclasses
import resource

import jax
import numpy as np
import psutil
import pytest
from flax import nnx

from configs import quickstart
from hsa_jax.memory import (
  DeviceMemory,
  HostMemory,
  KvDtype,
  KvPlace,
  MemoryBytes,
  MemoryHomeError,
)
from hsa_jax.memory import plan as room
from hsa_jax.memory.disk import DiskMemory
from hsa_jax.memory.layout import layout_of_block, layout_of_config
from hsa_jax.memory.make import make_memory
from hsa_jax.memory.plan import Home, available, plan_memory
from hsa_jax.memory.streamed import LandmarkPlace
from hsa_jax.models import LanguageModel
from tests.memory.cases import cut, make_block
from tests.models.helpers import TINY

GIB = 1 << 30
CFG = quickstart.build().model
PLENTY = MemoryBytes(100 * GIB, 100 * GIB, 100 * GIB)


def plan(free=PLENTY, home=Home.AUTO, **options):
  """32M tokens of the quickstart model: 1 GiB + 8 GiB."""
  options = {"length": 32 << 20, "batch": 1, **options}
  return plan_memory(CFG, home=home, free=free, **options)


def test_bytes_by_place():
  assert plan(home=Home.DEVICE).needed == (9 * GIB, 0, 0)
  assert plan(home=Home.HOST).needed == (0, 9 * GIB, 0)
  assert plan(home=Home.DISK).needed == (0, 0, 9 * GIB)
  split = plan(home=Home.DISK, landmark_place=LandmarkPlace.DEVICE)
  assert split.needed == (GIB, 0, 9 * GIB)
  split = plan(home=Home.HOST, landmark_place=LandmarkPlace.DEVICE)
  assert split.needed == (GIB, 8 * GIB, 0)
  half = plan(home=Home.HOST, kv_dtype=KvDtype.BFLOAT16)
  assert half.needed.host == 5 * GIB
  assert str(half) == (
    "memory=host: 2097152 chunks, 5.00 GiB host, keys and values as bfloat16"
    " (errors up to 0.4% of a chunk's largest)"
  )
  small = plan(home=Home.HOST, kv_dtype=KvDtype.INT8, batch=2)
  assert small.needed.host == 2 * (3 * GIB + 8 * (2 << 20))
  shard = plan(home=Home.SHARDED, shards=8).needed.device
  assert shard == 9 * GIB // 8 + 9 * GIB // (2 << 20)
  pinned = plan(home=Home.SHARDED, shards=8, kv_place=KvPlace.PINNED_HOST)
  spare = 1 + (2 << 20) // 8
  assert pinned.needed == (spare * 512, 8 * spare * 4096, 0)
  assert str(pinned) == (
    "memory=sharded: 2097152 chunks, 128.00 MiB on each of 8 devices +"
    " 8.00 GiB host"
  )


@pytest.mark.parametrize(
  ("free", "shards", "home"),
  [
    (PLENTY, 1, Home.DEVICE),
    (PLENTY._replace(device=14 * GIB), 4, Home.SHARDED),
    (PLENTY._replace(device=GIB), 4, Home.HOST),
    (PLENTY._replace(device=14 * GIB), 1, Home.HOST),
    (MemoryBytes(8 * GIB, 12 * GIB, 10 * GIB), 1, Home.DISK),
  ],
)
def test_auto_takes_the_first_that_fits(free, shards, home):
  assert plan(free, shards=shards).home is home


def test_what_does_not_fit_names_the_numbers_and_a_way_out():
  free = MemoryBytes(GIB, 6 * GIB, 8 * GIB)
  with pytest.raises(MemoryHomeError) as error:
    plan(free)
  text = str(error.value)
  assert "--memory=device needs 9.00 GiB device of 614.40 MiB usable" in text
  assert "--memory=disk needs 9.00 GiB disk of 7.60 GiB usable" in text
  assert "--memory=host --kv-dtype=int8 fits" in text
  with pytest.raises(MemoryHomeError, match="--memory=disk fits"):
    plan(free._replace(disk=10 * GIB), home=Home.HOST)
  with pytest.raises(MemoryHomeError, match="Shorten the context"):
    plan(MemoryBytes(0, 0, 0))


def test_devices_store_what_was_computed():
  with pytest.raises(ValueError, match="only host and disk"):
    plan(home=Home.DEVICE, kv_dtype=KvDtype.INT8)
  assert plan(kv_dtype=KvDtype.INT8).home is Home.HOST


def test_a_model_without_memory_needs_nothing():
  hsa = dataclasses.replace(TINY.hsa, num_groups=0)
  cfg = dataclasses.replace(TINY, hsa=hsa)
  found = plan_memory(
    cfg, length=1 << 20, batch=1, home=Home.AUTO, free=MemoryBytes(0, 0, 0)
  )
  assert (found.num_chunks, sum(found.needed)) == (0, 0)


def test_available_respects_the_limits(tmp_path, monkeypatch):
  free = available(tmp_path / "not" / "there")
  assert 0 < free.device == free.host <= psutil.virtual_memory().total
  assert free.disk > 0 == available().disk
  most, used = tmp_path / "max", tmp_path / "current"
  most.write_text("5000\n")
  used.write_text("2000\n")
  files = ((str(tmp_path / "none"), ""), (str(most), str(used)))
  monkeypatch.setattr(room, "_CONTAINER_FILES", files)
  assert available().host == 3000
  most.write_text("max")
  monkeypatch.setattr(resource, "getrlimit", lambda kind: (4096, -1))
  assert available().host == 0


def test_plan_and_memory_agree_on_bytes(tmp_path):
  """The layout of the configuration is that of the blocks a model makes."""
  norm = dataclasses.replace(TINY.hsa, landmark_norm=True)
  for cfg in (
    TINY,
    dataclasses.replace(TINY, compute_dtype="bfloat16"),
    dataclasses.replace(TINY, compute_dtype="bfloat16", hsa=norm),
  ):
    block = jax.eval_shape(
      lambda cfg=cfg: LanguageModel(cfg, rngs=nnx.Rngs(0)).encode(
        jax.numpy.zeros((2, 32, cfg.embed_dim))
      )
    )
    assert layout_of_block(block) == layout_of_config(cfg, batch=2)


@pytest.mark.parametrize("kv_dtype", list(KvDtype))
def test_make_memory_takes_what_was_planned(tmp_path, kv_dtype):
  layout = layout_of_block(make_block(1), kv_dtype)
  kinds = {Home.HOST: HostMemory, Home.DISK: DiskMemory}
  if kv_dtype is KvDtype.COMPUTED:
    kinds[Home.DEVICE] = DeviceMemory
  for home, kind in kinds.items():
    needed = room.bytes_needed(layout, 8, home)
    planned = room.Plan(home, layout, 8, LandmarkPlace.STORE, needed)
    memory = make_memory(planned, folder=tmp_path / kv_dtype)
    assert type(memory) is kind
    memory = memory.append(cut(make_block(8), 0, 5))
    assert memory.nbytes() == needed
  with pytest.raises(ValueError, match="a folder must be given"):
    make_memory(planned._replace(home=Home.DISK))
  with pytest.raises(ValueError, match="a mesh axis must be given"):
    make_memory(planned._replace(home=Home.SHARDED))


def test_ram_that_is_refused(monkeypatch):
  def refuse(*shape):
    raise MemoryError

  layout = layout_of_block(make_block(1))
  monkeypatch.setattr(np, "zeros", refuse)
  with pytest.raises(MemoryHomeError, match="use --memory=disk"):
    HostMemory(9, layout=layout)
