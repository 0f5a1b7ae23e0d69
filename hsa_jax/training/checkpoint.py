"""Checkpoints that describe themselves and are verified when they are read.

On disk: `workdir/checkpoints/<step>/{model,optimizer}/<array>/`, one folder
for each array, and metadata with the resolved configuration, the tokenizer,
the step, the library versions and the SHA-256 of every array.
"""

import importlib.metadata
import os
import pathlib
from typing import Any, NamedTuple

import jax
from flax import nnx
from jax.sharding import Mesh, SingleDeviceSharding
from orbax.checkpoint import v1 as ocp

from hsa_jax import config as config_lib
from hsa_jax.config import Config, ConfigError
from hsa_jax.parallel import leaf_name, named_leaves, tree_shardings
from hsa_jax.training.digest import digests, find_damage
from hsa_jax.training.state import BuildModel, TrainState

FOLDER = "checkpoints"
FORMAT = 1
MODEL, OPTIMIZER = "model", "optimizer"
LIBRARIES = ("jax", "flax", "optax", "orbax-checkpoint", "numpy")


class CheckpointError(ValueError):
  """A checkpoint that does not exist, is damaged, or is of another shape."""


class CheckpointMeta(NamedTuple):
  """What a checkpoint says of itself.

  Attributes:
    step: optimizer steps done.
    tokens_seen: training tokens so far.
    tokenizer: its spec, as in the data config.
    tokenizer_fingerprint: SHA-256 of its definition.
    versions: library name to version, of the run that saved it.
    digests: item and array name to SHA-256.
    folder: the checkpoint's folder.
  """

  step: int
  tokens_seen: int
  tokenizer: str
  tokenizer_fingerprint: str
  versions: dict[str, str]
  digests: dict[str, dict[str, str]]
  folder: pathlib.Path


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

  def __init__(self, workdir: str | os.PathLike[str], info: RunInfo):
    self._info = info
    self._folder = pathlib.Path(workdir).absolute() / FOLDER
    policies: Any = ocp.training.preservation_policies
    self._orbax = ocp.training.Checkpointer(
      str(self._folder),
      context=_context(),
      preservation_policy=policies.LatestN(info.cfg.train.keep_checkpoints),
      cleanup_tmp_directories=True,
    )
    self._response: Any = None

  @property
  def latest_step(self) -> int | None:
    """Step of the newest complete checkpoint; None if there is none."""
    latest = self._orbax.latest
    return None if latest is None else latest.step

  def folder(self, step: int) -> pathlib.Path:
    """Where the checkpoint of `step` lies."""
    return self._folder / str(step)

  def save(self, step: int, state: TrainState) -> None:
    """Starts to save; returns once the arrays are off the device.

    Waits for the save before it, and raises what went wrong there. A step
    that is already saved is left alone.

    Raises:
      CheckpointError: if the previous save failed (a full disk, say).
    """
    self.wait()
    if any(known.step == step for known in self._orbax.checkpoints):
      return
    items = _items(state)
    try:
      self._response = self._orbax.save_checkpointables_async(
        step,
        items,
        custom_metadata=_metadata(self._info, step, items),
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
    _, meta = read_metadata(self.folder(step))
    self._check_tokenizer(meta)
    loaded = _load(meta, _items(abstract))
    return TrainState(
      _fill(abstract.model, loaded[MODEL]),
      _fill(abstract.opt_state, loaded[OPTIMIZER], "opt_state."),
      loaded[OPTIMIZER]["step"],
    )

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
  loaded = _load(meta, {MODEL: named_leaves(model)})
  return _fill(model, loaded[MODEL]), cfg, meta


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
  steps = _steps(root)
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


def read_metadata(folder: pathlib.Path) -> tuple[Config, CheckpointMeta]:
  """The configuration and the facts stored beside the arrays.

  Raises:
    CheckpointError: if they are missing or of another version.
  """
  try:
    raw: Any = ocp.checkpointables_metadata(str(folder)).custom_metadata
    if not raw or raw["format"] != FORMAT:
      raise KeyError("format")
    cfg = config_lib.from_dict(raw["config"], where=str(folder))
    meta = CheckpointMeta(
      step=raw["step"],
      tokens_seen=raw["tokens_seen"],
      tokenizer=raw["tokenizer"],
      tokenizer_fingerprint=raw["tokenizer_fingerprint"],
      versions=raw["versions"],
      digests=raw["digests"],
      folder=folder,
    )
  except ConfigError as error:
    raise CheckpointError(f"{folder}: of another version; {error}") from error
  except Exception as error:  # Any damage at all must end in one message.
    raise CheckpointError(
      f"{folder}: its metadata cannot be read ({_cause(error)})\n{_fix(folder)}"
    ) from error
  return cfg, meta


def _language_model(cfg: Config) -> BuildModel:
  from hsa_jax.models import LanguageModel

  return lambda rngs: LanguageModel(cfg.model, rngs=rngs)


def _context() -> ocp.Context:
  # One folder per array (no OCDBT), so that damage has a name and a place.
  context = ocp.Context()
  context.array.saving.use_ocdbt = False
  return context


def _items(state: TrainState) -> dict[str, dict[str, Any]]:
  """The two items of a checkpoint, each a flat dictionary by array name."""
  optimizer = named_leaves({"opt_state": state.opt_state, "step": state.step})
  return {MODEL: named_leaves(state.model), OPTIMIZER: optimizer}


def _metadata(
  info: RunInfo, step: int, items: dict[str, dict[str, Any]]
) -> dict[str, Any]:
  return {
    "format": FORMAT,
    "step": step,
    "tokens_seen": tokens_seen(info.cfg, step),
    "tokenizer": info.tokenizer,
    "tokenizer_fingerprint": info.tokenizer_fingerprint,
    "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
    "digests": {item: digests(arrays) for item, arrays in items.items()},
    "config": config_lib.to_dict(info.cfg),
  }


def _load(
  meta: CheckpointMeta, items: dict[str, dict[str, Any]]
) -> dict[str, Any]:
  """Verified arrays of the named items, as `items` describes them."""
  problems = []
  for item, arrays in items.items():
    saved = meta.digests[item]
    problems += [
      f"array {n}: not in the checkpoint" for n in arrays.keys() - saved
    ]
    problems += [f"array {n}: not in this model" for n in saved.keys() - arrays]
    problems += find_damage(meta.folder / item, saved)
  if problems:
    lines = "\n".join(f"  {line}" for line in sorted(problems))
    raise CheckpointError(
      f"{meta.folder}: damaged\n{lines}\n{_fix(meta.folder)}"
    )
  try:
    with _context():
      return ocp.load_checkpointables(str(meta.folder), items)
  except Exception as error:  # Orbax hides the reason in the cause.
    raise CheckpointError(
      f"{meta.folder}: cannot be loaded ({_cause(error)})\n{_fix(meta.folder)}"
    ) from error


def _fill(like: Any, arrays: dict[str, Any], prefix: str = "") -> Any:
  """The pytree `like` with its leaves replaced by name."""
  return jax.tree_util.tree_map_with_path(
    lambda path, _: arrays[prefix + leaf_name(path)], like
  )


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


def _cause(error: BaseException) -> str:
  while error.__cause__ is not None:
    error = error.__cause__
  text = str(error).split(" [")[0].split("\n")[0][:300]
  return f"{type(error).__name__}: {text}"


def _fix(folder: pathlib.Path) -> str:
  others = [step for step in _steps(folder.parent) if step != int(folder.name)]
  if others:
    return f"  fix: delete {folder} to go back to step {max(others)}"
  return "  fix: restore the folder from a copy, or train again"


def _steps(root: pathlib.Path) -> list[int]:
  if not root.is_dir():
    return []
  return [
    int(p.name) for p in root.iterdir() if p.name.isdigit() and p.is_dir()
  ]
