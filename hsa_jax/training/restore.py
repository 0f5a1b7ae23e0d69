"""From which checkpoint a run goes on: the newest that is whole."""

from collections.abc import Callable

from hsa_jax.training.checkpoint import Checkpointer
from hsa_jax.training.state import TrainState
from hsa_jax.training.stored import DamagedError


def restore_newest(
  saver: Checkpointer,
  abstract: TrainState,
  say: Callable[[str], None] = lambda text: None,
) -> TrainState | None:
  """The state of the newest checkpoint that is whole, on any mesh.

  Damaged ones are passed over with a message, and moved out of the way only
  once a whole one is loaded: the run then makes those steps again, and will
  save them again.

  Args:
    saver: of the run.
    abstract: shapes and shardings to restore to; the mesh may be another one.
    say: told of every damaged checkpoint.

  Returns:
    The state, or None for a run without checkpoints.

  Raises:
    DamagedError: no checkpoint is whole; nothing was moved.
    CheckpointError: the checkpoints are those of another run.
  """
  damaged: dict[int, DamagedError] = {}
  for step in sorted(saver.steps, reverse=True):
    try:
      state = saver.restore(step, abstract)
    except DamagedError as error:
      damaged[step] = error
      continue
    for bad, reason in damaged.items():
      moved = saver.set_aside(bad)
      say(_warning(bad, step, reason, str(moved)))
    return state
  if damaged:
    newest = damaged[max(damaged)]
    others = ", ".join(map(str, sorted(damaged)))
    raise DamagedError(
      f"no checkpoint is whole (steps {others}); the newest:\n{newest}"
    )
  return None


def _warning(bad: int, good: int, reason: DamagedError, moved: str) -> str:
  lines = "\n".join(f"  {line}" for line in reason.problems)
  return (
    f"WARNING: the checkpoint of step {bad} is damaged\n{lines}\n"
    f"  going back to step {good}; the steps after it are made again\n"
    f"  the damaged files are now in {moved}\n"
    "  fix: check the disk they were on; delete them when they are of no use"
  )
