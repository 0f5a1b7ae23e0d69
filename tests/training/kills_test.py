"""A run killed again and again, on other devices each time, loses nothing."""

import dataclasses
import signal
import time

import numpy as np
import pytest

from .helpers import (
  losses,
  make_config,
  make_store,
  start_job,
  values,
  write_config,
)

pytestmark = pytest.mark.slow

STEPS = 60
LIMIT_S = 900
# (processes, devices of each) of one life after the other.
LIVES = (
  (1, 8),
  (1, 4),
  (1, 1),
  (1, 8),
  (2, 1),
  (1, 1),
  (2, 4),
  (1, 4),
  (1, 8),
  (1, 1),
  (2, 2),
  (1, 1),
)


def long_config(store):
  """Eight rows a step, so that eight devices have one each."""
  cfg = make_config(str(store), checkpoint_every=2, diagnose_every=0)
  stage = dataclasses.replace(
    cfg.data.stages[1], num_steps=STEPS, seq_len=192, batch_size=8
  )
  return dataclasses.replace(
    cfg,
    data=dataclasses.replace(cfg.data, stages=(stage,)),
    optimizer=dataclasses.replace(cfg.optimizer, learning_rate=1e-3),
  )


def finish(jobs):
  said = [job.communicate(timeout=LIMIT_S)[1] for job in jobs]
  assert [job.returncode for job in jobs] == [0] * len(jobs), said


def kill_all(jobs, ready) -> None:
  """Every process at once and without warning, as soon as `ready()`."""
  deadline = time.monotonic() + LIMIT_S
  while not ready():
    ended = [job for job in jobs if job.poll() is not None]
    assert not ended, ended[0].communicate()[1]
    assert time.monotonic() < deadline, "the moment to kill never came"
    time.sleep(0.001)
  for job in jobs:
    job.send_signal(signal.SIGKILL)
  assert [job.wait(LIMIT_S) for job in jobs] == [-signal.SIGKILL] * len(jobs)
  for job in jobs:
    job.stderr.close()


def test_many_kills_on_many_meshes_change_nothing(tmp_path):
  make_store(tmp_path / "store")
  config = write_config(tmp_path / "tiny.py", long_config(tmp_path / "store"))
  cache, run, whole = (tmp_path / name for name in ("cache", "run", "whole"))
  checkpoints = run / "checkpoints"
  rng = np.random.default_rng(0)
  during_save = 0
  for number, (count, devices) in enumerate(LIVES):
    reached = max(losses(run), default=0)
    wanted = reached + int(rng.integers(1, 5))

    def stepped(wanted=wanted) -> bool:
      return max(losses(run), default=0) >= wanted

    def saving() -> bool:
      return any(checkpoints.glob("*.orbax-checkpoint-tmp/**/zarr.json"))

    jobs = start_job(config, cache, run, count=count, devices=devices)
    kill_all(jobs, saving if number % 3 == 2 else stepped)
    during_save += bool(list(checkpoints.glob("*.orbax-checkpoint-tmp")))
  assert during_save >= 3, "killed too late to hit a save"
  assert max(losses(run)) < STEPS, "it ended before the last kill"
  for workdir, devices in ((run, 8), (whole, 1)):
    finish(start_job(config, cache, workdir, count=1, devices=devices))
  every_step = list(range(1, STEPS + 1))
  hashes = values(whole, "train/token_hash")
  assert list(hashes) == every_step and len(set(hashes.values())) == STEPS
  assert values(run, "train/token_hash") == hashes
  ours, expected = losses(run), losses(whole)
  assert abs(ours[STEPS] - expected[STEPS]) < 1e-5
  for step in every_step:
    assert abs(ours[step] - expected[step]) < 1e-4, step
