"""A checkpoint of weights that were not trained here."""

import os
import pathlib
from collections.abc import Iterable

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from hsa_jax.training.checkpoint import (
  FOLDER,
  MODEL,
  RunInfo,
  metadata_of,
)
from hsa_jax.training.digest import digest
from hsa_jax.training.stored import CheckpointError, context, saved_steps


def check_empty(workdir: str | os.PathLike[str]) -> None:
  """Refuses a folder that has checkpoints.

  Raises:
    CheckpointError: naming the steps.
  """
  root = pathlib.Path(workdir).absolute() / FOLDER
  steps = sorted(saved_steps(root))
  if steps:
    raise CheckpointError(
      f"{root}: holds checkpoints already (steps {', '.join(map(str, steps))})"
      "\n  fix: give another --workdir"
    )


def write_model(
  workdir: str | os.PathLike[str],
  info: RunInfo,
  arrays: Iterable[tuple[str, np.ndarray]],
) -> pathlib.Path:
  """Saves a model without an optimizer as the checkpoint of step 0.

  It can be evaluated, and a run can begin with it (`train.init_from`). The
  memory of the host holds the model twice while it is written.

  Args:
    workdir: has no checkpoints yet.
    info: what the checkpoint says of itself.
    arrays: every parameter under its name, float32; taken one by one.

  Returns:
    The folder of the checkpoint.

  Raises:
    CheckpointError: if it cannot be written, or there are others.
  """
  check_empty(workdir)
  device = jax.local_devices(backend="cpu")[0]
  model, digests = {}, {}
  for name, array in arrays:
    digests[name] = digest(array)
    model[name] = jax.device_put(array, device)
  root = pathlib.Path(workdir).absolute() / FOLDER
  saver = ocp.training.Checkpointer(
    str(root), context=context(), cleanup_tmp_directories=True
  )
  try:
    saver.save_checkpointables(
      0,
      {MODEL: model},
      custom_metadata=metadata_of(info, 0, {MODEL: digests}),
      force=True,
    )
  except OSError as error:
    raise CheckpointError(f"cannot save to {root}: {error}") from error
  finally:
    saver.close()
  return root / "0"
