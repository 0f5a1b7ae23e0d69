"""Scalars on disk (JSONL is the source of truth) and their reading."""

import json
import math
import os
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import jax

FILE = "metrics.jsonl"


def read_step_metrics(metrics: Any) -> dict[str, float]:
  """Device scalars of one step as named floats; waits for that step.

  Answer metrics are left out of a batch that holds no answers: a zero there
  would read as perfect or as failed.
  """
  values = {k: float(v) for k, v in jax.device_get(metrics)._asdict().items()}
  if not values["answer_tokens"]:
    values = {k: v for k, v in values.items() if not k.startswith("answer_")}
  return {f"train/{name}": value for name, value in values.items()}


def read_metrics(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
  """Records of a `metrics.jsonl`; a torn last line is passed over.

  Args:
    path: the file, or the workdir that holds it.
  """
  path = pathlib.Path(path)
  path = path / FILE if path.is_dir() else path
  if not path.exists():
    return
  for line in path.read_text().splitlines():
    try:
      yield json.loads(line)
    except json.JSONDecodeError:
      continue


class MetricsWriter:
  """Appends scalars to `metrics.jsonl` and to TensorBoard files.

  A run that resumes at step `n` first drops the records after `n`, which the
  lost steps had written: every step appears once, as if nothing had happened.
  """

  def __init__(self, workdir: str | os.PathLike[str], *, start_step: int):
    self._path = pathlib.Path(workdir) / FILE
    self._drop_after(start_step)
    self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115
    self._board = _open_board(workdir, start_step)

  def write(self, step: int, values: dict[str, float]) -> None:
    """One record; flushed, so that a crash loses nothing written.

    Args:
      step: optimizer steps done.
      values: names with units; a value that is not finite becomes null.
    """
    clean = {k: v if math.isfinite(v) else None for k, v in values.items()}
    record = {"step": step, "time_s": round(time.time(), 3), **clean}
    self._file.write(json.dumps(record) + "\n")
    self._file.flush()
    for name, value in values.items():
      self._board.add_scalar(name, value, step)

  def close(self) -> None:
    """Closes both files."""
    self._file.close()
    self._board.close()

  def _drop_after(self, step: int) -> None:
    if not self._path.exists():
      return
    kept = [r for r in read_metrics(self._path) if r["step"] <= step]
    temporary = self._path.with_suffix(".tmp")
    temporary.write_text("".join(json.dumps(r) + "\n" for r in kept))
    temporary.replace(self._path)


def _open_board(workdir: str | os.PathLike[str], start_step: int) -> Any:
  import tensorboardX  # Slow to import, and only a run needs it.

  folder = str(pathlib.Path(workdir) / "tensorboard")
  return tensorboardX.SummaryWriter(folder, purge_step=start_step + 1)
