"""The rules of the window's implementation."""

from collections.abc import Iterator

from hsa_jax.config.fields import Config


def window_problems(cfg: Config) -> Iterator[str]:
  """A kernel of a fixed window does not go with a schedule of windows."""
  if cfg.train.window_schedule and cfg.model.window_implementation == "splash":
    yield (
      "model.window_implementation = 'splash': its window is fixed, and"
      " train.window_schedule narrows it; use 'auto' or 'banded'"
    )
