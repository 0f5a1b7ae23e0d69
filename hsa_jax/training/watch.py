"""What the host does about a step that went wrong: keep its batch, stop."""

import json
import math
import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from hsa_jax.config import Guard, TrainConfig
from hsa_jax.data.pipeline import Batch
from hsa_jax.training.guard import Verdict, overdrawn

FOLDER = "bad_batches"
GUARD_VERDICT, GUARD_DEBT = "guard/verdict", "guard/debt"


class Diverged(RuntimeError):
  """A step went wrong and the run has ended; the checkpoints are good."""


class Watch:
  """Looks at every finished step, one step late like all who read metrics."""

  def __init__(
    self,
    cfg: TrainConfig,
    workdir: str | os.PathLike[str],
    *,
    say: Callable[[str], None] = lambda text: None,
  ):
    """Keeps bad batches in `workdir/bad_batches`."""
    self._cfg = cfg
    self._folder = pathlib.Path(workdir) / FOLDER
    self._say = say

  def check(self, step: int, values: dict[str, float], batch: Batch) -> None:
    """Returns after a good step, and after one that may be skipped.

    Args:
      step: optimizer steps done.
      values: metrics of the step.
      batch: rows of this process that the step was given.

    Raises:
      Diverged: the run must end here. Nothing of this step was saved.
    """
    verdict = _verdict(values)
    if verdict is Verdict.FINE:
      return
    path = save_batch(self._folder, step, values, batch)
    what = _describe(verdict, values)
    action = self._action(verdict)
    debt = values.get(GUARD_DEBT, 0.0)
    if action is Guard.SKIP and not overdrawn(debt, self._cfg):
      self._say(
        f"step {step}: {what}; skipped (train.max_skips ="
        f" {self._cfg.max_skips}), its batch is in {path}"
      )
      return
    raise Diverged(self._farewell(step, what, verdict, values, path))

  def _action(self, verdict: Verdict) -> Guard:
    if verdict is Verdict.SPIKE:
      return self._cfg.on_spike
    return self._cfg.on_nonfinite

  def _farewell(
    self,
    step: int,
    what: str,
    verdict: Verdict,
    values: dict[str, float],
    path: pathlib.Path,
  ) -> str:
    rate = values["train/learning_rate"]
    lines = [
      f"training diverged at step {step}: {what} (learning rate {rate:.3g})"
    ]
    field = "on_spike" if verdict is Verdict.SPIKE else "on_nonfinite"
    skipping = self._action(verdict) is Guard.SKIP
    if skipping:
      most = self._cfg.max_skips
      lines.append(f"  more steps were skipped than train.max_skips = {most}")
    lines += [
      "  nothing of this step was saved; the checkpoints before it are good",
      f"  its batch is in {path}",
      "  fix: in a new --workdir, try a lower optimizer.learning_rate, a longer"
      " optimizer.warmup_steps or a lower optimizer.clip_norm",
    ]
    if not skipping:
      lines.append(f"  or leave such steps out: train.{field}=skip")
    return "\n".join(lines)


def save_batch(
  folder: pathlib.Path, step: int, values: dict[str, float], batch: Batch
) -> pathlib.Path:
  """Writes the arrays of a batch, and `values` as JSON text, to one `.npz`.

  With several processes each writes its own rows.

  Returns:
    The file of this process: `step_<step>.npz`.
  """
  folder.mkdir(parents=True, exist_ok=True)
  several = jax.process_count() > 1
  part = f".process_{jax.process_index()}" if several else ""
  path = folder / f"step_{step:08}{part}.npz"
  text = {k: v if math.isfinite(v) else str(v) for k, v in values.items()}
  arrays: dict[str, Any] = batch._asdict()
  np.savez(path, values=json.dumps(text), **arrays)
  return path


def _verdict(values: dict[str, float]) -> Verdict:
  """The guard's, or the host's own where there is no guard."""
  if any(not math.isfinite(value) for value in values.values()):
    return Verdict.NOT_FINITE
  return Verdict(int(values.get(GUARD_VERDICT, Verdict.FINE)))


def _describe(verdict: Verdict, values: dict[str, float]) -> str:
  if verdict is Verdict.SPIKE:
    return f"gradient norm {values['train/grad_norm']:.3g}, a spike"
  bad = {k: v for k, v in values.items() if not math.isfinite(v)}
  return ", ".join(f"{name} = {value}" for name, value in bad.items())
