"""Faults of the machine, told as what to do about them."""

import errno

import jax

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FAULTS = (OSError, MemoryError, jax.errors.JaxRuntimeError)


def explain_fault(error: Exception) -> str | None:
  """One line for a full disk or exhausted memory; None for anything else."""
  if isinstance(error, OSError) and error.errno in _NO_ROOM:
    where = error.filename or "--workdir"  # a write that fails has no name
    return f"{where}: {error.strerror}; make room, then run the same command"
  exhausted = "RESOURCE_EXHAUSTED" in str(error)
  if isinstance(error, MemoryError) or exhausted:
    first = (str(error).splitlines() or ["refused by the system"])[0]
    return (
      f"out of memory ({first}): use --memory=disk, a smaller --segment or a"
      " smaller --batch; finished samples are kept"
    )
  return None
