"""A trace of a few steps."""

import os
import pathlib
from collections.abc import Callable

import jax

from hsa_jax.training.hooks import Hook, Moment
from hsa_jax.training.state import TrainState

FOLDER = "profile"


class Profile(Hook):
  """Traces the steps `first .. end - 1` into `workdir/profile`.

  A run that resumes inside the window or after it traces nothing.
  """

  def __init__(
    self,
    workdir: str | os.PathLike[str],
    window: tuple[int, ...],
    *,
    say: Callable[[str], None] = lambda text: None,
  ):
    """Traces nothing yet.

    Args:
      workdir: of the run.
      window: (first, end), or () for never.
      say: told where the trace is.
    """
    self._folder = pathlib.Path(workdir) / FOLDER
    self._window = window
    self._say = say
    self._tracing = False

  def wants(self, step: int, moment: Moment) -> bool:
    if not self._window:
      return False
    first, end = self._window
    starts = step == first - 1 and moment is Moment.STEP
    return starts or (self._tracing and step == end - 1)

  def on_state(self, step: int, state: TrainState) -> None:
    # The steps before are done, so that the trace holds whole steps.
    jax.block_until_ready(state.step)
    if self._tracing:
      self.close()
    else:
      jax.profiler.start_trace(str(self._folder))
      self._tracing = True

  def close(self) -> None:
    if not self._tracing:
      return
    jax.profiler.stop_trace()
    self._tracing = False
    self._say(f"trace of the steps written to {self._folder}")
