"""Faults of the machine, told as what to do about them."""

import errno
import sys
from collections.abc import Callable

import jax

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FAULTS = (OSError, MemoryError, jax.errors.JaxRuntimeError)


def exit_code(
  command: Callable[[], object],
  *,
  input_errors: tuple[type[Exception], ...],
  stopped: str = "stopped",
  if_out_of_memory: str = "give it more, or less to do",
) -> int:
  """Runs a command to its end; tells what went wrong in one message.

  Args:
    command: returns when it has finished.
    input_errors: whose text says what to correct.
    stopped: told after a Ctrl-C.
    if_out_of_memory: what to change.

  Returns:
    0 finished, 2 something to correct, 130 stopped. Other errors are bugs, and
    pass through.
  """
  try:
    command()
    return 0
  except input_errors as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  except FAULTS as error:
    message = explain_fault(error, if_out_of_memory)
    if message is None:
      raise
    print(f"error: {message}", file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    print(f"\n{stopped}", file=sys.stderr)
    return 130


def explain_fault(error: Exception, if_out_of_memory: str) -> str | None:
  """One line for a full disk or exhausted memory; None for anything else."""
  if isinstance(error, OSError) and error.errno in _NO_ROOM:
    where = error.filename or "--workdir"  # a write that fails has no name
    return f"{where}: {error.strerror}; make room, then run the same command"
  exhausted = "RESOURCE_EXHAUSTED" in str(error)
  if isinstance(error, MemoryError) or exhausted:
    first = (str(error).splitlines() or ["refused by the system"])[0]
    return f"out of memory ({first}): {if_out_of_memory}"
  return None
