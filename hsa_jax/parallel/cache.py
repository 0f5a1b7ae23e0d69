"""Compiled programs kept between runs, so that a restart begins at once."""

import os
import pathlib

import jax

VARIABLE = "JAX_COMPILATION_CACHE_DIR"


def enable_compilation_cache(folder: str | None = None) -> str:
  """Points JAX's persistent compilation cache at a folder of the user.

  Call it before the first compilation. Touches no device.

  Args:
    folder: where to keep programs. None takes the environment variable
      `JAX_COMPILATION_CACHE_DIR`, else `hsa_jax/xla` under
      `XDG_CACHE_HOME` (`~/.cache` where that is not set).

  Returns:
    The folder, or an empty string where it cannot be written: a cache is a
    convenience, never a reason to stop.
  """
  target = pathlib.Path(folder or os.environ.get(VARIABLE) or _default())
  try:
    target.mkdir(parents=True, exist_ok=True)
  except OSError:
    return ""
  if not os.access(target, os.W_OK):
    return ""
  jax.config.update("jax_compilation_cache_dir", str(target))
  # Small programs count too: a run starts with dozens of them.
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
  return str(target)


def _default() -> pathlib.Path:
  home = os.environ.get("XDG_CACHE_HOME")
  base = pathlib.Path(home) if home else pathlib.Path.home() / ".cache"
  return base / "hsa_jax" / "xla"
