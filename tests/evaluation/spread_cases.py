"""Prefill and chunks on virtual devices; run by `spread_test.py`."""

import dataclasses

import jax
import numpy as np
import pytest

from hsa_jax.evaluation import generated, hsa_ruler, perplexity
from hsa_jax.evaluation.results import ResultStore, read_lines
from hsa_jax.evaluation.room import Room, make_devices, plan_room
from hsa_jax.evaluation.session import Diagnostics, PrefillKind, Session
from hsa_jax.evaluation.suite import asked_of
from hsa_jax.memory import Home, KvPlace

from .helpers import build_model, make_session
from .samples import make_job, random_prompt

SEGMENT, LENGTH = 16, 250  # several calls of 8 windows, a ragged end
SHARDED, PINNED = {"memory": Home.SHARDED}, {"kv_place": KvPlace.PINNED_HOST}
HALO = {"prefill": PrefillKind.HALO}
WAYS = {
  "sharded": SHARDED,
  "sharded_pinned": {**SHARDED, **PINNED},
  "halo_host": HALO,
  "halo_disk": {**HALO, "memory": Home.DISK},
  "halo_sharded": {**HALO, **SHARDED},
  "halo_sharded_pinned": {**HALO, **SHARDED, **PINNED},
}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
  """A session on one device, with chunks in host RAM."""
  folder = tmp_path_factory.mktemp("alone")
  return make_session(folder, lengths=(LENGTH,), segment=SEGMENT)


def spread(alone: Session, folder, ways: dict) -> Session:
  """The same on all devices, in another results folder."""
  settings = dataclasses.replace(alone.settings, **ways)
  return Session(
    build_model(alone.cfg.model),
    alone.cfg,
    alone.tokenizer,
    alone.store,
    settings,
    ResultStore(folder, alone.results.info),
    mesh=make_devices(settings),
  )


def some_slow(names, *fast):
  """All names; those that are not in `fast` are left to the slow tests."""
  return [
    pytest.param(name, marks=() if name in fast else pytest.mark.slow)
    for name in names
  ]


@pytest.mark.parametrize(
  "name", some_slow(WAYS, "sharded", "halo_disk", "halo_sharded_pinned")
)
def test_needles(alone, tmp_path, name):
  (job,) = hsa_ruler.SUITE.jobs(asked_of(alone))
  hsa_ruler.SUITE.run(alone, job)
  want = alone.results.finished(job.key)
  session = spread(alone, tmp_path, WAYS[name])
  assert session.mesh is not None and session.mesh.size == 8
  result = hsa_ruler.SUITE.run(session, job)
  pinned = WAYS[name].get("kv_place") is KvPlace.PINNED_HOST
  assert (result["host_bytes"] > 0) == (pinned or name == "halo_host")
  lines = read_lines(tmp_path / "predictions.jsonl")
  assert len(lines) == job.num_samples
  for line in lines:
    for field in ("prediction_ids", "recall_at_k", "depth"):
      assert line[field] == want[line["sample"]][field]


@pytest.mark.parametrize(
  "name", some_slow(["sharded", "halo_host", "halo_sharded"], "halo_sharded")
)
def test_generation_and_diagnostics(alone, tmp_path, name):
  job = make_job(LENGTH, 2)
  prompts = [random_prompt(n, LENGTH - 9, max_new_tokens=9) for n in (0, 1)]
  lines = []
  for ways in ({}, WAYS[name]):
    ways = {**ways, "diagnostics": Diagnostics.FULL}
    session = spread(alone, tmp_path / f"ways{len(lines)}", ways)
    generated.run_generated_job(
      session,
      job,
      prompts.__getitem__,
      score=lambda prompt, text: {"score": 0.0},
      summarise=lambda rows: {"score": 0.0},
    )
    lines.append(session.results.finished(job.key))
  for number, want in lines[0].items():
    for field in ("prediction_ids", "recalled_evidence", "diagnostics"):
      assert lines[1][number][field] == want[field]


def test_perplexity(alone, tmp_path, monkeypatch):
  monkeypatch.setattr(perplexity, "MAX_FORWARD", 128)  # so it is streamed
  session = spread(alone, tmp_path, WAYS["halo_sharded"])
  for job in perplexity.SUITE.jobs(asked_of(alone)):
    want = perplexity.SUITE.run(alone, job)
    got = perplexity.SUITE.run(session, job)
    np.testing.assert_allclose(got["score"], want["score"], rtol=1e-5)


def test_auto_takes_all_devices_and_one_device_is_refused(alone, tmp_path):
  def plan(**ways):
    settings = dataclasses.replace(alone.settings, **ways)
    mesh = make_devices(settings)
    return plan_room(settings, alone.cfg.model, 1 << 20, tmp_path, mesh)

  found = plan(memory=Home.AUTO)
  assert (found.home, found.shards) == (Home.SHARDED, 8)
  assert "on each of 8 devices" in str(found)
  assert plan(memory=Home.DEVICE).home is Home.DEVICE
  with pytest.raises(ValueError, match="on 8 devices: .*--memory=sharded"):
    plan(memory=Home.DEVICE, **HALO)


def test_plan_of_the_sharded_home_is_what_it_takes(alone, tmp_path):
  for ways in (SHARDED, {**SHARDED, **PINNED}):
    session = spread(alone, tmp_path, ways)
    settings, model = session.settings, session.cfg.model
    plan = plan_room(settings, model, LENGTH, tmp_path, session.mesh)
    with Room(session, LENGTH) as room:
      memory = room.emptied()
    taken = memory.nbytes()  # device bytes of all devices together
    assert (taken.device, taken.host) == (
      8 * plan.needed.device,
      plan.needed.host,
    )
    parts = memory.arrays.keys.addressable_shards
    assert len({part.device for part in parts}) == jax.device_count() == 8
