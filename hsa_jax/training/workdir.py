"""The folder of a run: one configuration for ever, one run at a time."""

import fcntl
import json
import os
import pathlib
import tempfile
from typing import IO

from hsa_jax import config as config_lib
from hsa_jax.config import Config, ConfigError

CONFIG_FILE = "config.json"
LOCK_FILE = ".lock"


class WorkdirError(ValueError):
  """The folder cannot hold this run; nothing in it was changed."""


def check_workdir(workdir: str | os.PathLike[str], cfg: Config) -> None:
  """Refuses a folder that cannot be written or holds another run.

  Writes nothing that stays, and creates no folder.

  Raises:
    WorkdirError: naming the folder, and the fields that differ.
  """
  workdir = pathlib.Path(workdir)
  _check_writable(workdir)
  _check_same_config(workdir / CONFIG_FILE, cfg)


def claim_workdir(workdir: str | os.PathLike[str], cfg: Config) -> IO[str]:
  """Creates the folder, locks it and writes `config.json`.

  Returns:
    The open lock file; the lock lives as long as it does, and the operating
    system frees it however the process ends.

  Raises:
    WorkdirError: as `check_workdir`, or if another run holds the lock.
  """
  workdir = pathlib.Path(workdir)
  check_workdir(workdir, cfg)
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    lock = _lock(workdir)
    path = workdir / CONFIG_FILE
    if not path.exists():
      temporary = path.with_suffix(".tmp")
      temporary.write_text(config_lib.to_json(cfg) + "\n")
      temporary.replace(path)
  except OSError as error:
    raise WorkdirError(_unwritable(workdir, error.strerror)) from error
  return lock


def read_config(workdir: str | os.PathLike[str]) -> Config:
  """The configuration stored in a workdir.

  Raises:
    WorkdirError: if there is none, or it cannot be read.
  """
  path = pathlib.Path(workdir) / CONFIG_FILE
  try:
    return config_lib.from_json(path.read_text(), where=str(path))
  except (OSError, json.JSONDecodeError, ConfigError) as error:
    raise WorkdirError(
      f"{path}: not a configuration of this version ({error})\n"
      "  fix: give another --workdir, or move this one away"
    ) from error


def _check_writable(workdir: pathlib.Path) -> None:
  try:
    existing = next(
      p for p in [workdir, *workdir.absolute().parents] if p.exists()
    )
    if not existing.is_dir():
      raise NotADirectoryError(20, f"{existing} is not a folder")
    if existing == workdir:
      # Only an attempt tells: permission bits mean nothing to a superuser or
      # on a read-only mount.
      with tempfile.TemporaryFile(dir=existing):
        return
    if not os.access(existing, os.W_OK | os.X_OK):
      raise PermissionError(13, f"no permission to write in {existing}")
  except OSError as error:
    raise WorkdirError(_unwritable(workdir, error.strerror)) from error


def _unwritable(workdir: pathlib.Path, why: str | None) -> str:
  return (
    f"workdir {workdir}: cannot be written ({why})\n"
    "  fix: give a --workdir in a folder you may write to"
  )


def _check_same_config(path: pathlib.Path, cfg: Config) -> None:
  if not path.exists():
    return
  changed = config_lib.differences(read_config(path.parent), cfg)
  if changed:
    lines = "\n".join(f"  {line}" for line in changed)
    raise WorkdirError(
      f"workdir {path.parent} holds a run with another configuration"
      f" (there -> here)\n{lines}\n"
      "  fix: give another --workdir, or the configuration of this one"
    )


def _lock(workdir: pathlib.Path) -> IO[str]:
  lock = open(workdir / LOCK_FILE, "w")  # noqa: SIM115
  try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError as error:
    lock.close()
    raise WorkdirError(
      f"workdir {workdir}: another run is writing to it\n"
      "  fix: wait for that run or stop it, or give another --workdir"
    ) from error
  return lock
