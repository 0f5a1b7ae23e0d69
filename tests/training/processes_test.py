"""Two processes of one job: asked to stop through one of them, both save."""

import dataclasses
import re
import signal
import time

import pytest

from hsa_jax.config import MeshConfig

from .helpers import (
  losses,
  make_config,
  make_store,
  start_job,
  values,
  write_config,
)

pytestmark = pytest.mark.slow

LIMIT_S = 900


def long_config(store):
  """Steps enough that a signal finds the run at work."""
  cfg = make_config(str(store), checkpoint_every=10_000, checkpoint_every_s=3.0)
  first, second = cfg.data.stages
  first = dataclasses.replace(first, num_steps=20_000)
  data = dataclasses.replace(cfg.data, stages=(first, second))
  return dataclasses.replace(cfg, data=data)


def wait_for_step(workdir, jobs, step: int) -> None:
  deadline = time.monotonic() + LIMIT_S
  while max(losses(workdir), default=0) < step:
    assert all(job.poll() is None for job in jobs), jobs[0].stderr.read()
    assert time.monotonic() < deadline
    time.sleep(0.05)


def finish(jobs) -> list[str]:
  """Their last words; all must have ended as asked."""
  said = [job.communicate(timeout=LIMIT_S)[1] for job in jobs]
  codes = [job.returncode for job in jobs]
  assert codes == [143] * len(jobs), "\n".join(said)
  return said


def test_sigterm_to_one_of_two_saves_one_step_on_both(tmp_path):
  make_store(tmp_path / "store")
  config = write_config(tmp_path / "tiny.py", long_config(tmp_path / "store"))
  cache, run = tmp_path / "cache", tmp_path / "run"
  jobs = start_job(config, cache, run, count=2)
  wait_for_step(run, jobs, 3)
  jobs[1].send_signal(signal.SIGTERM)
  said = finish(jobs)
  steps = {re.search(r"saved step (\d+)", text)[1] for text in said}
  assert len(steps) == 1, said
  step = int(steps.pop())
  assert (run / "checkpoints" / str(step)).is_dir()
  assert max(losses(run)) == step

  # One process goes on where the two were, on the same data.
  jobs = start_job(config, cache, run, count=1)
  wait_for_step(run, jobs, step + 3)
  jobs[0].send_signal(signal.SIGTERM)
  (text,) = finish(jobs)
  assert f"resuming at step {step:,}" in text
  alone = tmp_path / "alone"
  jobs = start_job(config, cache, alone, count=1)
  wait_for_step(alone, jobs, step + 3)
  jobs[0].send_signal(signal.SIGTERM)
  finish(jobs)
  ours, theirs = losses(run), losses(alone)
  assert set(range(1, step + 4)) <= set(ours)
  for i in range(1, step + 4):
    assert ours[i] == pytest.approx(theirs[i], rel=1e-5), i


@pytest.mark.parametrize(
  "mesh",
  [
    MeshConfig(data=1, context=4),
    MeshConfig(data=1, tensor=4),
    MeshConfig(data=2, context=2),
    MeshConfig(data=1, fsdp=2, tensor=2),
  ],
  ids=lambda mesh: f"{mesh.data}x{mesh.fsdp}x{mesh.context}x{mesh.tensor}",
)
def test_rows_on_two_processes_are_the_same_rows(tmp_path, mesh):
  """Two processes of two devices, and one device: one run."""
  make_store(tmp_path / "store")
  cfg = make_config(str(tmp_path / "store"), diagnose_every=4)
  cache = tmp_path / "cache"
  seen = {}
  for name, own, count, devices in (
    ("together", mesh, 2, 2),
    ("alone", MeshConfig(), 1, 1),
  ):
    config = write_config(
      tmp_path / f"{name}.py", dataclasses.replace(cfg, mesh=own)
    )
    jobs = start_job(
      config, cache, tmp_path / name, count=count, devices=devices
    )
    said = [job.communicate(timeout=LIMIT_S)[1] for job in jobs]
    assert [job.returncode for job in jobs] == [0] * count, said
    keys = ("train/loss_nats", "train/token_hash", "valid/loss_nats")
    seen[name] = [values(tmp_path / name, key) for key in keys]
  for ours, theirs in zip(seen["together"], seen["alone"], strict=True):
    assert list(ours) == list(theirs) and ours
    for step, value in theirs.items():
      assert ours[step] == pytest.approx(value, rel=1e-4), step
  assert seen["together"][1] == seen["alone"][1]
