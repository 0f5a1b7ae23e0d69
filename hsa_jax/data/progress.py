"""How far a long piece of work is, and when it will be done."""

import sys
import time
from collections.abc import Callable

import tqdm


def say(line: str) -> None:
  """One line of progress, on standard error."""
  print(line, file=sys.stderr, flush=True)


class Progress:
  """A bar with the time left on a terminal, a line per tenth elsewhere.

  What an earlier run has done counts as done, but not as speed.
  """

  def __init__(
    self,
    total: int,
    *,
    verb: str = "tokenized",
    clock: Callable[[], float] = time.perf_counter,
  ):
    """Starts the clock.

    Args:
      total: bytes of input.
      verb: what happened to the bytes.
      clock: seconds.
    """
    self._verb = verb
    self._total, self._clock, self._start = total, clock, clock()
    self._done = self._kept = 0
    self._bar: tqdm.tqdm | None = None

  def __enter__(self) -> "Progress":
    if sys.stderr.isatty():
      self._bar = tqdm.tqdm(total=self._total, unit="B", unit_scale=True)
      self._bar.set_description(self._verb)
    return self

  def __exit__(self, *error: object) -> None:
    if self._bar is not None:
      self._bar.close()

  def expect(self, total: int) -> None:
    """Sets how much there is in all."""
    self._total = total
    if self._bar is not None:
      self._bar.total = total

  def made(self, num_bytes: int) -> None:
    """Input that was tokenized just now."""
    self._advance(num_bytes)

  def kept(self, num_bytes: int) -> None:
    """Input that an earlier run had tokenized."""
    self._kept += num_bytes
    if self._bar is not None:
      self._bar.initial += num_bytes
    self._advance(num_bytes)

  def _advance(self, num_bytes: int) -> None:
    before, self._done = self._done, self._done + num_bytes
    if self._bar is not None:
      self._bar.update(num_bytes)
      return
    total = self._total
    if total and 10 * before // total != 10 * self._done // total:
      done = f"{self._verb} {self._done / 1e6:.1f} of {total / 1e6:.1f} MB"
      say(done + self._pace())

  def _pace(self) -> str:
    seconds = self._clock() - self._start
    fresh = self._done - self._kept
    if seconds <= 0 or fresh <= 0:
      return ""
    rate, left = fresh / seconds, self._total - self._done
    return f", {rate / 1e6:.1f} MB/s, {left / rate:.0f} s left"
