"""One progress line: samples done, tokens per second, time left."""

import collections
import sys
import time

import tqdm

_RECENT_S = 20.0


class Progress:
  """A bar on a terminal, a plain line every few seconds elsewhere."""

  def __init__(
    self, *, total_tokens: int, total_samples: int, every_s: float = 10.0
  ):
    """Starts the clock.

    Args:
      total_tokens: of all samples still to be computed.
      total_samples: number of these samples.
      every_s: seconds between plain lines.
    """
    self.samples = 0
    self.tokens = 0
    self._total_tokens = max(total_tokens, 1)
    self._total_samples = total_samples
    self._every_s = every_s
    self._last = time.monotonic()
    self._marks = collections.deque([(self._last, 0)])
    self._name = ""
    self._bar = None
    if sys.stderr.isatty():
      self._bar = tqdm.tqdm(
        total=total_tokens, unit="tok", unit_scale=True, dynamic_ncols=True
      )

  def begin(self, name: str) -> None:
    """Names what is being measured now."""
    self._name = name
    if self._bar is not None:
      self._bar.set_description(name)

  def advance(self, tokens: int, *, samples: int = 0) -> None:
    """Counts work that is done."""
    self.tokens += tokens
    self.samples += samples
    if tokens:
      self._mark()
    if self._bar is not None:
      self._bar.set_postfix_str(
        f"{self.samples}/{self._total_samples} samples", refresh=False
      )
      self._bar.update(tokens)
    elif time.monotonic() - self._last >= self._every_s:
      self._last = time.monotonic()
      print(self.line(), flush=True)

  def skip(self, tokens: int) -> None:
    """Leaves out work that an earlier run has done."""
    self._total_tokens = max(self._total_tokens - tokens, 1)
    if self._bar is not None:
      self._bar.total = self._total_tokens
      self._bar.refresh()

  def _mark(self) -> None:
    """Remembers the last seconds: short and long contexts differ in speed.

    At least that many, however rare the marks are.
    """
    now = time.monotonic()
    self._marks.append((now, self.tokens))
    while len(self._marks) > 2 and now - self._marks[1][0] >= _RECENT_S:
      self._marks.popleft()

  def message(self, text: str) -> None:
    """Prints a line without breaking the bar."""
    if self._bar is None:
      print(text, flush=True)
    else:
      self._bar.write(text)

  def line(self) -> str:
    """The plain progress line; the speed is that of the last seconds."""
    since, tokens = self._marks[0]
    rate = (self.tokens - tokens) / max(time.monotonic() - since, 1e-9)
    return (
      f"{self._name}: {self.samples}/{self._total_samples} samples,"
      f" {rate:,.0f} tokens/s, ETA {self._eta(rate)}"
    )

  def _eta(self, rate: float) -> str:
    """Minutes and seconds left; a dash while nothing is being read."""
    if rate <= 0:
      return "-"
    left = max(self._total_tokens - self.tokens, 0) / rate
    minutes, seconds = divmod(int(left), 60)
    return f"{minutes}:{seconds:02d}"

  def restart(self) -> None:
    """Starts the clock again, after compilation."""
    self._last = time.monotonic()
    self._marks = collections.deque([(self._last, self.tokens)])
    if self._bar is not None:
      self._bar.reset()

  def __enter__(self) -> "Progress":
    return self

  def __exit__(self, *_: object) -> None:
    if self._bar is not None:
      self._bar.close()
