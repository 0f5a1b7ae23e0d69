"""Whether all processes of a job see one folder.

Each writes its part of a checkpoint. On disks of their own, the parts would lie
apart, and the run could never be resumed: better said before the first step.
"""

import time
import uuid
from collections.abc import Callable

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from hsa_jax.parallel.launch import StartError

_PATIENCE_S = 30.0  # network file systems show a new file late


def check_shared(
  folder: str, *, what: str = "--workdir", patience_s: float = _PATIENCE_S
) -> None:
  """Process 0 writes a file, the others look for it; one process has no rule.

  Args:
    folder: a local or remote path; made if it is missing.
    what: the flag that names it, for the message.
    patience_s: seconds to look.

  Raises:
    StartError: in all processes, if one does not see the file or process 0
      cannot write it.
  """
  if jax.process_count() == 1:
    return
  index = jax.process_index()
  mark = np.frombuffer(uuid.uuid4().bytes, np.uint8)
  mark = np.asarray(multihost_utils.process_allgather(mark))[0]
  path = epath.Path(folder) / f".start-{mark.tobytes().hex()}"
  written = _attempt(lambda: _write(path)) if index == 0 else ""
  # Also a barrier: nobody looks before it is written.
  wrote = np.asarray(multihost_utils.process_allgather(np.array(not written)))
  seen = bool(wrote[0]) and _appears(path, patience_s)
  sees = np.asarray(multihost_utils.process_allgather(np.array(seen)))
  if index == 0:
    _attempt(lambda: path.unlink(missing_ok=True))
  if not wrote[0]:
    detail = f" ({written})" if written else ""
    raise StartError(
      [f"{what} = {folder}: process 0 cannot write there{detail}"]
    )
  if not sees.all():
    blind = ", ".join(map(str, np.flatnonzero(~sees)[:8]))
    raise StartError(
      [
        f"{what} = {folder}: what process 0 writes is not seen by process"
        f" {blind}; give a folder on storage that every host mounts"
      ]
    )


def _write(path: epath.Path) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text("")


def _attempt(action: Callable[[], None]) -> str:
  """What went wrong, or ""; an error here must reach the other processes."""
  try:
    action()
  except OSError as error:
    return str(error)
  return ""


def _appears(path: epath.Path, patience_s: float) -> bool:
  end = time.monotonic() + patience_s
  while not path.exists():
    if time.monotonic() > end:
      return False
    time.sleep(0.2)
  return True
