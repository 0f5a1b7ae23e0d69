"""Changes that make a run fit, sweeps, and the same work on more chips."""

import pytest

from hsa_jax.config import MeshConfig, Remat, fits_devices
from hsa_jax.parallel.chips import CHIPS, Topology, TopologyError
from hsa_jax.training import prospect
from hsa_jax.training.footprint import state_shapes
from hsa_jax.training.prospect import changed, flags_of, look_ahead

from .footprint_test import STAGE, config


def room(nbytes: int, count: int = 8) -> Topology:
  """Chips with so much memory each."""
  return Topology(CHIPS["v5e"]._replace(hbm_bytes=nbytes), (count,))


def peak(cfg, count: int = 8) -> int:
  return look_ahead(cfg, STAGE, room(0, count)).needed.total


def nearest(cfg, nbytes: int, compiled: int | None = None):
  one = look_ahead(cfg, STAGE, room(nbytes))
  assert one.missing == one.needed.total - nbytes
  state = state_shapes(cfg)
  return prospect.nearest_fit(one, state, compiled=compiled)


def test_recomputing_is_tried_first():
  cfg = config(remat=Remat.NONE)
  found = nearest(cfg, peak(config()))
  assert found.flags == "--config.model.remat=block"
  assert found.prospect.missing == 0


def test_then_micro_batches():
  cfg = config()
  found = nearest(cfg, peak(cfg) - 1)
  assert found.flags == "--config.train.grad_accum_steps=2"


def test_then_parameters_are_split():
  """Two rows a device: micro-batches of one row are the smallest."""
  limit = peak(config(parts=2)) - 1
  found = nearest(config(), limit)
  assert "--config.mesh.fsdp=2" in found.flags
  assert fits_devices(found.prospect.cfg, 8)
  assert 0 < found.prospect.needed.total <= limit


def test_nothing_fits_in_nothing():
  assert nearest(config(), 0) is None


def test_the_word_of_the_compiler_scales_the_search():
  """It wants twice what arithmetic said: so half must do."""
  cfg = config()
  limit = peak(config(parts=2))
  assert nearest(cfg, limit).prospect.cfg.train.grad_accum_steps == 2
  scaled = nearest(cfg, limit, compiled=2 * peak(cfg))
  assert 2 * scaled.prospect.needed.total <= limit


def test_the_sweep_sorts_by_speed_and_fits():
  limit = peak(config())
  fitting, too_large = prospect.sweep(config(), STAGE, room(limit))
  assert fitting and too_large
  speeds = [round(change.prospect.tokens_per_s) for change in fitting]
  assert speeds == sorted(speeds, reverse=True)
  assert all(c.prospect.needed.total <= limit for c in fitting)
  assert len({c.flags for c in fitting}) == len(fitting)
  assert "" in {c.flags for c in fitting}  # as it is, it just fits


def test_flags_say_what_was_changed():
  cfg = config()
  other = changed(
    cfg, mesh=MeshConfig(data=-1, fsdp=4), remat=Remat.NONE, batch=32
  )
  assert flags_of(cfg, other) == (
    "--config.mesh.fsdp=4 --config.model.remat=none"
    " --config.data.stages[0].batch_size=32"
  )
  assert flags_of(cfg, cfg) == ""


def scaled(cfg, counts: list[int], name: str = "v5e"):
  return list(prospect.scaled(cfg, STAGE, CHIPS[name], counts, rows=2))


def test_weak_scaling_keeps_the_work_of_a_device():
  found = scaled(config(), [8, 64, 512])
  assert [p.stage.batch_size for p in found] == [16, 128, 1024]
  assert len({p.floor.compute for p in found}) == 1
  assert [p.topology.slices for p in found] == [1, 1, 2]
  assert [bool(p.floor.network) for p in found] == [False, False, True]


def test_slices_share_the_batch_when_fsdp_is_free():
  (found,) = scaled(config(MeshConfig(data=1, fsdp=-1)), [512])
  sizes = dict(found.mesh.shape)
  assert (sizes["data"], sizes["fsdp"]) == (2, 256)


def test_a_fixed_fsdp_is_at_most_all_devices():
  found = scaled(config(MeshConfig(data=-1, fsdp=16)), [8, 64])
  shapes = [tuple(p.mesh.shape.values()) for p in found]
  assert shapes == [(1, 8, 1, 1), (4, 16, 1, 1)]


def test_chips_that_fill_no_equal_slices_are_refused():
  with pytest.raises(TopologyError, match="slices"):
    scaled(config(), [300 + 1])


def test_tokens_per_second_are_those_of_a_device():
  one = look_ahead(config(), STAGE, room(1))
  tokens = STAGE.batch_size * STAGE.seq_len
  assert one.tokens_per_s == pytest.approx(tokens / one.floor.step / 8)
