import contextlib
import dataclasses
import os
import pathlib
import tempfile

import pytest

from hsa_jax.training.workdir import (
  WorkdirError,
  check_workdir,
  claim_workdir,
  read_config,
)

from .helpers import make_config

CFG = make_config()


def test_claim_writes_the_config_once(tmp_path):
  workdir = tmp_path / "a" / "b"
  claim_workdir(workdir, CFG).close()
  assert read_config(workdir) == CFG
  before = (workdir / "config.json").stat().st_mtime_ns
  claim_workdir(workdir, CFG).close()
  assert (workdir / "config.json").stat().st_mtime_ns == before


def test_another_config_is_refused_and_nothing_is_touched(tmp_path):
  claim_workdir(tmp_path, CFG).close()
  text = (tmp_path / "config.json").read_text()
  other = dataclasses.replace(
    CFG, train=dataclasses.replace(CFG.train, seed=7, log_every=3)
  )
  with pytest.raises(WorkdirError) as error:
    claim_workdir(tmp_path, other)
  assert "train.seed: 0 -> 7" in str(error.value)
  assert "train.log_every: 1 -> 3" in str(error.value)
  assert (tmp_path / "config.json").read_text() == text


def test_two_runs_at_once(tmp_path):
  lock = claim_workdir(tmp_path, CFG)
  with pytest.raises(WorkdirError, match="another run"):
    claim_workdir(tmp_path, CFG)
  lock.close()
  claim_workdir(tmp_path, CFG).close()


def test_a_file_in_the_way(tmp_path):
  (tmp_path / "file").write_text("mine")
  for path in (tmp_path / "file", tmp_path / "file" / "run"):
    with pytest.raises(WorkdirError, match="cannot be written.*not a folder"):
      check_workdir(path, CFG)
  assert (tmp_path / "file").read_text() == "mine"


@contextlib.contextmanager
def ordinary_user():
  """Drops the rights of a superuser, to whom permissions mean nothing."""
  if os.geteuid() != 0:
    yield
    return
  nobody = 65534
  os.setresuid(nobody, nobody, 0)
  try:
    yield
  finally:
    os.setresuid(0, 0, 0)


def test_no_permission():
  # Not in tmp_path: another user cannot even look there.
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    folder.chmod(0o555)
    with ordinary_user():
      for path in (folder, folder / "run"):
        with pytest.raises(WorkdirError, match="cannot be written.*ermission"):
          check_workdir(path, CFG)
    folder.chmod(0o755)


def test_check_creates_nothing(tmp_path):
  check_workdir(tmp_path / "run", CFG)
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", '{"model": {"nope": 1}}'])
def test_a_config_that_cannot_be_read(tmp_path, text):
  (tmp_path / "config.json").write_text(text)
  with pytest.raises(WorkdirError, match="config.json"):
    check_workdir(tmp_path, CFG)
  assert (tmp_path / "config.json").read_text() == text
