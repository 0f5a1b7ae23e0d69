"""The real command, killed without warning, resumed to the same bits."""

import dataclasses
import os
import re
import signal
import subprocess
import time
from unittest import mock

import numpy as np
import pytest

from hsa_jax.parallel import named_leaves
from hsa_jax.training.checkpoint import load_model

from .helpers import (
  command,
  environment,
  losses,
  make_config,
  make_store,
  run_train,
  write_config,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
  """Config file, cache, and the workdir of a run nobody disturbed."""
  root = tmp_path_factory.mktemp("kill")
  make_store(root / "store")
  cfg = make_config(str(root / "store"), checkpoint_every=1)
  config_file = write_config(root / "tiny.py", cfg)
  whole = root / "whole"
  result = run_train(
    f"--config={config_file}",
    f"--workdir={whole}",
    cache=root / "cache",
    timeout=600,
  )
  assert result.returncode == 0, result.stderr
  return config_file, root / "cache", whole


def kill_when(config_file, cache, workdir, ready, number=signal.SIGKILL) -> int:
  """Starts the command and sends it a signal as soon as `ready()`."""
  process = subprocess.Popen(
    command(f"--config={config_file}", f"--workdir={workdir}"),
    env=environment(cache),
    stderr=subprocess.DEVNULL,
  )
  deadline = time.monotonic() + 300
  while not ready() and process.poll() is None:
    assert time.monotonic() < deadline, "the moment to kill never came"
    time.sleep(0.001)
  process.send_signal(number)
  return process.wait(timeout=600)


def assert_resumes_to_the_same_bits(setup, workdir):
  config_file, cache, whole = setup
  result = run_train(
    f"--config={config_file}", f"--workdir={workdir}", cache=cache, timeout=300
  )
  assert result.returncode == 0, result.stderr
  assert losses(workdir) == losses(whole)
  ours, theirs = (named_leaves(load_model(w)[0]) for w in (workdir, whole))
  for name, array in theirs.items():
    np.testing.assert_array_equal(ours[name], array, err_msg=name)
  return result


def test_kill_during_training(setup, tmp_path):
  config_file, cache, _ = setup
  code = kill_when(
    config_file, cache, tmp_path, lambda: len(losses(tmp_path)) >= 3
  )
  assert code == -signal.SIGKILL
  result = assert_resumes_to_the_same_bits(setup, tmp_path)
  assert re.search(r"resuming at step [1-9]", result.stderr)


@pytest.mark.parametrize("step", [4, 8])
def test_kill_during_a_save(setup, tmp_path, step):
  config_file, cache, _ = setup
  folder = tmp_path / "checkpoints"

  def saving() -> bool:
    return any(folder.glob(f"{step}.orbax-checkpoint-tmp/**/zarr.json"))

  assert kill_when(config_file, cache, tmp_path, saving) == -signal.SIGKILL
  assert list(folder.glob("*.orbax-checkpoint-tmp")), "killed too late"
  assert not (folder / str(step)).exists()
  assert_resumes_to_the_same_bits(setup, tmp_path)
  assert not list(folder.glob("*.orbax-checkpoint-tmp"))


def test_sigterm_saves_and_says_so(setup, tmp_path):
  config_file, cache, _ = setup
  code = kill_when(
    config_file,
    cache,
    tmp_path,
    lambda: len(losses(tmp_path)) >= 2,
    signal.SIGTERM,
  )
  assert code == 143
  assert_resumes_to_the_same_bits(setup, tmp_path)


def test_check_prints_the_plan_and_writes_nothing(setup, tmp_path):
  config_file, cache, _ = setup
  result = run_train(
    f"--config={config_file}",
    f"--workdir={tmp_path}/run",
    "--check",
    cache=cache,
    timeout=300,
  )
  assert result.returncode == 0, result.stderr
  for word in ("parameters", "FLOP per token", "optimizer", "mesh data="):
    assert word in result.stdout
  assert not (tmp_path / "run").exists()


def test_resumes_on_8_then_4_then_1_then_8_devices(tmp_path):
  """Stopped in between each time; the end is that of one device throughout."""
  make_store(tmp_path / "store")
  cfg = make_config(str(tmp_path / "store"), checkpoint_every=3)
  stage = dataclasses.replace(cfg.data.stages[0], num_steps=40, batch_size=8)
  cfg = dataclasses.replace(
    cfg,
    data=dataclasses.replace(cfg.data, stages=(stage,)),
    optimizer=dataclasses.replace(cfg.optimizer, learning_rate=1e-3),
  )
  config_file = write_config(tmp_path / "tiny.py", cfg)
  cache, run, whole = (tmp_path / name for name in ("cache", "run", "whole"))

  def devices(count):
    return mock.patch.dict(os.environ, JAX_NUM_CPU_DEVICES=str(count))

  for count in (8, 4, 1):
    before = max(losses(run), default=0)
    with devices(count):
      code = kill_when(
        config_file,
        cache,
        run,
        lambda before=before: max(losses(run), default=0) > before + 1,
        signal.SIGTERM,
      )
    assert code == 143
  for count, workdir in ((8, run), (1, whole)):
    with devices(count):
      arguments = (f"--config={config_file}", f"--workdir={workdir}")
      result = run_train(*arguments, cache=cache, timeout=900)
    assert result.returncode == 0, result.stderr
    assert f"on {count} cpu device" in result.stderr
  ours, theirs = losses(run), losses(whole)
  assert list(ours) == list(theirs) == list(range(1, 41))
  for step, loss in theirs.items():
    assert abs(ours[step] - loss) < 1e-5, step
