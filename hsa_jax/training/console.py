"""What a person sees: one bar on a terminal, plain lines elsewhere."""

import sys
from typing import Any, TextIO

import tqdm

from hsa_jax.training.hooks import Hook, Moment, Record


class Console:
  """Prints lines, above the bar where there is one."""

  def __init__(self, *, stream: TextIO | None = None, active: bool = True):
    """Writes to `stream` (standard error); silent unless `active`."""
    self.stream = sys.stderr if stream is None else stream
    self.active = active
    self.is_terminal = active and self.stream.isatty()

  def say(self, text: str) -> None:
    """One or more lines."""
    if not self.active:
      return
    if self.is_terminal:
      tqdm.tqdm.write(text, file=self.stream)
    else:
      print(text, file=self.stream, flush=True)

  def values(self, step: int, values: dict[str, float]) -> None:
    """A line of metrics, as validation reports them."""
    text = "  ".join(f"{name} {value:.4f}" for name, value in values.items())
    self.say(f"step {step}: {text}")


class Progress(Hook):
  """Loss, answers, speed and time left of the run."""

  def __init__(
    self, console: Console, *, every: int, start_step: int, num_steps: int,
    tokens_done: int, tokens_total: int,
  ):  # fmt: skip
    """Starts at `start_step` of `num_steps`; the time left goes by tokens.

    Args:
      console: where to print.
      every: steps between two plain lines; a bar moves at every step.
      start_step: steps done before.
      num_steps: steps of the run.
      tokens_done: tokens seen before; stages differ in tokens per step.
      tokens_total: tokens of the run.
    """
    self._console = console
    self._every = every
    self._num_steps = num_steps
    self._left = tokens_total - tokens_done
    self._speed = 0.0
    self._bar: Any = None
    if console.is_terminal:
      self._bar = tqdm.tqdm(
        total=num_steps, initial=start_step, file=console.stream, unit="step",
        bar_format="{n_fmt}/{total_fmt} {bar:20} {percentage:3.0f}% {desc}",
      )  # fmt: skip

  def on_metrics(self, record: Record) -> None:
    self._left -= record.tokens
    speed = record.tokens / max(record.seconds, 1e-9)
    # The first step pays for warming up; an average with a memory of some 20
    # steps follows a change of stage and is not thrown by one slow step.
    self._speed = (
      speed if not self._speed else 0.95 * self._speed + 0.05 * speed
    )
    text = self._text(record)
    if self._bar is not None:
      self._bar.set_description_str(text, refresh=False)
      self._bar.update(1)
    elif record.step % self._every == 0 or record.moment is not Moment.STEP:
      self._console.say(f"step {record.step}/{self._num_steps}  {text}")

  def close(self) -> None:
    if self._bar is not None:
      self._bar.close()

  def _text(self, record: Record) -> str:
    values = record.values
    parts = [record.stage, f"loss {values['train/loss_nats']:.3f} nats"]
    if "train/answer_accuracy" in values:
      parts.append(f"answers {values['train/answer_accuracy']:.1%}")
    parts.append(f"{self._speed:,.0f} tokens/s")
    parts.append(f"ETA {format_seconds(self._left / max(self._speed, 1e-9))}")
    return "  ".join(parts)


def format_seconds(seconds: float) -> str:
  """`5 s`, `3:07`, `2:05:00` or `3 d 4 h`."""
  whole = max(round(seconds), 0)
  minutes, second = divmod(whole, 60)
  hours, minute = divmod(minutes, 60)
  if hours >= 48:
    return f"{hours // 24} d {hours % 24} h"
  if hours:
    return f"{hours}:{minute:02}:{second:02}"
  return f"{minute}:{second:02}" if minute else f"{second} s"
