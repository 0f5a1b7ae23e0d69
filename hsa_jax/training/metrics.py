"""Scalars on disk (JSONL is the source of truth) and their reading."""

import json
import math
import os
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax

from hsa_jax.training.boards import Board, TensorBoard

FILE = "metrics.jsonl"


def read_step_metrics(metrics: Any) -> dict[str, float]:
  """Device scalars of one step as named floats; waits for that step.

  Answer metrics are left out of a batch that holds no answers: a zero there
  would read as perfect or as failed.
  """
  fields = jax.device_get(metrics)._asdict()
  guard = fields.pop("guard", None)
  values = {f"train/{name}": float(value) for name, value in fields.items()}
  if not values["train/answer_tokens"]:
    values = {k: v for k, v in values.items() if "/answer_" not in k}
  if guard is not None:
    values |= {f"guard/{k}": float(v) for k, v in guard._asdict().items()}
  return values


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
  """Appends scalars to `metrics.jsonl` and shows them on boards.

  A run that resumes at step `n` first drops the records after `n`, which the
  lost steps had written: every step appears once, as if nothing had happened.
  """

  def __init__(
    self,
    workdir: str | os.PathLike[str],
    *,
    start_step: int,
    boards: Sequence[Board] | None = None,
  ):
    """Opens the file.

    Args:
      workdir: folder of the run.
      start_step: steps done before.
      boards: are given every record too; None makes TensorBoard's.
    """
    self._path = pathlib.Path(workdir) / FILE
    self._drop_after(start_step)
    self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115
    if boards is None:
      boards = [TensorBoard(workdir, start_step=start_step)]
    self._boards = boards

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
    for board in self._boards:
      board.write(step, values)

  def close(self) -> None:
    """Closes the file and the boards."""
    self._file.close()
    for board in self._boards:
      board.close()

  def _drop_after(self, step: int) -> None:
    if not self._path.exists():
      return
    kept = [r for r in read_metrics(self._path) if r["step"] <= step]
    temporary = self._path.with_suffix(".tmp")
    temporary.write_text("".join(json.dumps(r) + "\n" for r in kept))
    temporary.replace(self._path)
