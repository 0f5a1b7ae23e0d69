"""How a run is asked to end: a signal, granted after the step."""

import os
import signal
import types
from typing import Any

import jax
from jax.experimental import multihost_utils


class Interrupted(Exception):
  """The run was asked to end by a signal, and has saved its state.

  Attributes:
    step: optimizer steps done.
    signal_number: what asked; 15 for SIGTERM, 2 for an interrupt by hand.
  """

  def __init__(self, step: int, signal_number: int):
    self.step = step
    self.signal_number = signal_number
    name = signal.Signals(signal_number).name
    super().__init__(f"{name}: saved step {step}; the same command resumes it")


class StopSignal:
  """Turns SIGTERM and the first Ctrl-C into a wish, granted after the step.

  A second Ctrl-C ends the program at once. Use as a context manager, in the
  main thread (elsewhere it listens to nothing).

  Where a job has several processes, all must stop after the same step. Then
  SIGTERM is left to the job's coordination service, which hears it on any
  process and agrees on a step that none has reached; a Ctrl-C is passed on to
  it as one.
  """

  def __init__(self) -> None:
    self.number = 0
    self._several = False
    self._interrupts = 0
    self._previous: dict[int, Any] = {}

  def __enter__(self) -> "StopSignal":
    self._several = jax.process_count() > 1
    heard = (
      [signal.SIGINT] if self._several else [signal.SIGTERM, signal.SIGINT]
    )
    for number in heard:
      try:
        self._previous[number] = signal.signal(number, self._note)
      except ValueError:  # Not the main thread.
        break
    return self

  def __exit__(self, *error: object) -> None:
    for number, handler in self._previous.items():
      signal.signal(number, handler)

  def requested(self, step: int) -> bool:
    """Whether to stop after `step`; the same answer on all processes.

    To be asked after every step.
    """
    if self._several and multihost_utils.reached_preemption_sync_point(step):
      self.number = signal.SIGTERM
    return bool(self.number)

  def _note(self, number: int, frame: types.FrameType | None) -> None:
    del frame
    if number == signal.SIGINT:
      self._interrupts += 1
      if self._interrupts > 1:
        raise KeyboardInterrupt
    if self._several:
      os.kill(os.getpid(), signal.SIGTERM)
    else:
      self.number = number
