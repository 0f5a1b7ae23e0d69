"""Checkpoints that describe themselves and are verified when they are read.

On disk: `workdir/checkpoints/<step>/{model,optimizer}/<array>/`, one folder
for each array, and metadata with the resolved configuration, the tokenizer,
the step, the library versions and the SHA-256 of every array.
"""

import importlib.metadata
import os
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jax.experimental import multihost_utils
from jax.sharding import Mesh, SingleDeviceSharding
from orbax.checkpoint import v1 as ocp

from hsa_jax import config as config_lib
from hsa_jax.config import Config
from hsa_jax.parallel import named_leaves, tree_shardings
from hsa_jax.training.digest import digests
from hsa_jax.training.state import BuildModel, TrainState
from hsa_jax.training.stored import (
  FORMAT,
  CheckpointError,
  CheckpointMeta,
  DamagedError,
  context,
  fill,
  load_arrays,
  read_metadata,
  saved_steps,
  verify,
)

FOLDER = "checkpoints"
DAMAGED_FOLDER = "checkpoints_damaged"
LOSS = "valid/loss_nats"  # stored with a checkpoint of a validated step
MODEL, OPTIMIZER = "model", "optimizer"
LIBRARIES = ("jax", "flax", "optax", "orbax-checkpoint", "numpy")


class RunInfo(NamedTuple):
  """What every checkpoint of a run repeats."""

  cfg: Config
  tokenizer: str
  tokenizer_fingerprint: str


def tokens_seen(cfg: Config, step: int) -> int:
  """Training tokens in the first `step` optimizer steps."""
  total = 0
  for stage in cfg.data.stages:
    steps = min(step, stage.num_steps)
    total += steps * stage.batch_size * stage.seq_len
    step -= steps
  return total


class Checkpointer:
  """Saves in the background, restores with verification."""

  def __init__(
    self,
    workdir: str | os.PathLike[str],
    info: RunInfo,
    *,
    retention: Any = None,
  ):
    """Looks what is there; changes nothing.

    Args:
      workdir: of the run.
      info: what every checkpoint repeats.
      retention: which checkpoints stay, a preservation policy of Orbax; None
        keeps the newest `train.keep_checkpoints`.
    """
    self._info = info
    self._folder = pathlib.Path(workdir).absolute() / FOLDER
    if retention is None:
      policies: Any = ocp.training.preservation_policies
      retention = policies.LatestN(info.cfg.train.keep_checkpoints)
    self._orbax = ocp.training.Checkpointer(
      str(self._folder),
      context=context(),
      preservation_policy=retention,
      cleanup_tmp_directories=True,
    )
    self._response: Any = None

  @property
  def steps(self) -> list[int]:
    """Steps of the complete checkpoints, damaged ones included."""
    return [known.step for known in self._orbax.checkpoints]

  @property
  def latest_step(self) -> int | None:
    """Step of the newest complete checkpoint; None if there is none."""
    return max(self.steps, default=None)

  def folder(self, step: int) -> pathlib.Path:
    """Where the checkpoint of `step` lies."""
    return self._folder / str(step)

  def save(
    self, step: int, state: TrainState, *, loss: float | None = None
  ) -> None:
    """Starts to save; returns once the arrays are off the device.

    Waits for the save before it, and raises what went wrong there. A step
    that is already saved is left alone.

    Args:
      step: optimizer steps done.
      state: after them.
      loss: of the validation at this step, in nats; None if there was none.

    Raises:
      CheckpointError: if the previous save failed (a full disk, say).
    """
    self.wait()
    if step in self.steps:
      return
    items = _items(state)
    try:
      self._response = self._orbax.save_checkpointables_async(
        step,
        items,
        metrics=None if loss is None else {LOSS: loss},
        custom_metadata=metadata_of(
          self._info,
          step,
          {item: digests(arrays) for item, arrays in items.items()},
        ),
        force=True,
      )
    except OSError as error:
      raise CheckpointError(f"cannot save step {step}: {error}") from error

  def wait(self) -> None:
    """Blocks until the save in progress is on disk; raises if it failed."""
    response, self._response = self._response, None
    if response is None:
      return
    try:
      response.result()
    except Exception as error:  # Orbax passes on whatever its threads met.
      raise CheckpointError(
        f"a checkpoint in {self._folder} could not be saved: {error}"
      ) from error

  def restore(self, step: int, abstract: TrainState) -> TrainState:
    """The state of `step`, on the devices and shardings of `abstract`.

    Raises:
      CheckpointError: naming the damaged array and its file; or the run went
        on with another tokenizer.
    """
    items = _items(abstract)

    def check() -> CheckpointMeta:
      _, meta = read_metadata(self.folder(step))
      self._check_tokenizer(meta)
      verify(meta, items)
      return meta

    loaded = load_arrays(_together(check), items)
    return TrainState(
      fill(abstract.model, loaded[MODEL]),
      fill(abstract.opt_state, loaded[OPTIMIZER], "opt_state."),
      loaded[OPTIMIZER]["step"],
      fill(abstract.kept, loaded[OPTIMIZER], "kept."),
    )

  def set_aside(self, step: int) -> pathlib.Path:
    """Moves a checkpoint to `checkpoints_damaged/`; returns its new place."""
    root = self._folder.parent / DAMAGED_FOLDER
    target = root / str(step)
    if jax.process_index() == 0:
      root.mkdir(exist_ok=True)
      number = 1
      while target.exists():
        target, number = root / f"{step}.{number}", number + 1
      self.folder(step).rename(target)
    if jax.process_count() > 1:
      multihost_utils.sync_global_devices(f"set aside {step}")
    self._orbax.reload()
    return target

  def _check_tokenizer(self, meta: CheckpointMeta) -> None:
    found = self._info.tokenizer_fingerprint
    if meta.tokenizer_fingerprint != found:
      raise CheckpointError(
        f"{meta.folder}: trained with tokenizer {meta.tokenizer!r} of"
        f" fingerprint {meta.tokenizer_fingerprint[:12]}, the one here has"
        f" {found[:12]}\n  fix: restore the original file, or give another"
        " --workdir"
      )

  def close(self) -> None:
    """Waits for the last save and stops the threads."""
    self.wait()
    self._orbax.close()


def load_model(
  path: str | os.PathLike[str],
  *,
  step: int | None = None,
  mesh: Mesh | None = None,
  build: BuildModel | None = None,
) -> tuple[Any, Config, CheckpointMeta]:
  """Loads the model alone, on any number of devices.

  Args:
    path: a workdir, its `checkpoints` folder, or the folder of one step.
    step: which checkpoint; None takes the newest.
    mesh: where to put the parameters, by the sharding table; None puts them
      whole on the first device.
    build: makes the model; None makes the `LanguageModel` of the
      configuration in the checkpoint.

  Returns:
    The model, the resolved configuration it was trained with, the metadata.

  Raises:
    CheckpointError: if there is no such checkpoint, or one is damaged (which
      array, which file).
  """
  folder = find_checkpoint(path, step=step)
  cfg, meta = read_metadata(folder)
  model = jax.eval_shape(lambda: (build or _language_model(cfg))(nnx.Rngs(0)))
  model = _place(model, mesh)
  items = {MODEL: named_leaves(model)}
  verify(meta, items)
  loaded = load_arrays(meta, items)
  return fill(model, loaded[MODEL]), cfg, meta


def find_checkpoint(
  path: str | os.PathLike[str], *, step: int | None = None
) -> pathlib.Path:
  """Folder of one checkpoint, from a workdir or anything inside it.

  Raises:
    CheckpointError: if there is none; says which steps there are.
  """
  path = pathlib.Path(path).absolute()
  if not path.exists():
    raise CheckpointError(
      f"{path}: no such folder\n  fix: give the --workdir of a training run"
    )
  if path.name.isdigit() and path.parent.name == FOLDER and step is None:
    return path
  root = path if path.name == FOLDER else path / FOLDER
  steps = saved_steps(root)
  if not steps:
    raise CheckpointError(
      f"{path}: no complete checkpoint here\n"
      "  fix: give the --workdir of a training run that has saved one"
    )
  chosen = max(steps) if step is None else step
  if chosen not in steps:
    known = ", ".join(map(str, sorted(steps)))
    raise CheckpointError(
      f"{root}: no checkpoint of step {step}; there are: {known}"
    )
  return root / str(chosen)


def _language_model(cfg: Config) -> BuildModel:
  from hsa_jax.models import LanguageModel

  return lambda rngs: LanguageModel(cfg.model, rngs=rngs)


def _items(state: TrainState) -> dict[str, dict[str, Any]]:
  """The two items of a checkpoint, each a flat dictionary by array name."""
  beside = {"opt_state": state.opt_state, "step": state.step}
  optimizer = named_leaves({**beside, "kept": state.kept})
  return {MODEL: named_leaves(state.model), OPTIMIZER: optimizer}


def metadata_of(
  info: RunInfo, step: int, of_items: dict[str, dict[str, str]]
) -> dict[str, Any]:
  """What is stored beside the arrays; digests by item and array name."""
  return {
    "format": FORMAT,
    "step": step,
    "tokens_seen": tokens_seen(info.cfg, step),
    "tokenizer": info.tokenizer,
    "tokenizer_fingerprint": info.tokenizer_fingerprint,
    "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
    "digests": of_items,
    "config": config_lib.to_dict(info.cfg),
  }


def _together(check: Callable[[], CheckpointMeta]) -> CheckpointMeta:
  """Runs a check on all processes; if it fails on one, it fails on all.

  Each process reads its share of the files, and loading is a common act: one
  that stays away leaves the others waiting.
  """
  error, meta = None, None
  try:
    meta = check()
  except CheckpointError as found:
    error = found
  failed = np.asarray(error is not None)
  if jax.process_count() > 1:
    failed = multihost_utils.process_allgather(failed)
  if error is not None:
    raise error
  if np.any(failed) or meta is None:
    problem = "another process found it damaged and says where"
    raise DamagedError(problem, (problem,))
  return meta


def _place(model: Any, mesh: Mesh | None) -> Any:
  """Abstract leaves with the shardings to load them with."""
  if mesh is None:
    device = SingleDeviceSharding(jax.local_devices()[0])
    shardings = jax.tree.map(lambda _: device, model)
  else:
    shardings = tree_shardings(model, mesh)
  return jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    model,
    shardings,
  )
