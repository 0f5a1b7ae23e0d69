"""What a checkpoint is on disk: its folders, its metadata, its verification.

`<step>/{model,optimizer}/<array>/`, one folder for each array, and metadata
with the resolved configuration, the tokenizer, the step, the library versions
and the SHA-256 of every array.
"""

import pathlib
from typing import Any, NamedTuple

import jax
from orbax.checkpoint import v1 as ocp

from hsa_jax import config as config_lib
from hsa_jax.config import Config, ConfigError
from hsa_jax.parallel import leaf_name
from hsa_jax.training.digest import find_damage

FORMAT = 1


class CheckpointError(ValueError):
  """A checkpoint that does not exist, is damaged, or is of another shape."""


class DamagedError(CheckpointError):
  """A checkpoint whose files are not what was saved.

  Attributes:
    problems: one line for each thing that is wrong.
  """

  def __init__(self, message: str, problems: tuple[str, ...] = ()):
    self.problems = problems
    super().__init__(message)


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
    problem = f"its metadata cannot be read ({_cause(error)})"
    raise DamagedError(
      f"{folder}: {problem}\n{_fix(folder)}", (problem,)
    ) from error
  return cfg, meta


def verify(meta: CheckpointMeta, items: dict[str, dict[str, Any]]) -> None:
  """Raises unless the files hold the arrays of `items`, as they were saved."""
  for item in items:
    if item not in meta.digests:
      raise CheckpointError(
        f"{meta.folder}: holds no {item}: its weights were not trained here\n"
        f"  fix: train in another --workdir, with train.init_from ="
        f" {meta.folder.parent.parent}"
      )
  strangers, damage = [], []
  for item, arrays in items.items():
    saved = meta.digests[item]
    strangers += [
      f"array {n}: not in the checkpoint" for n in arrays.keys() - saved
    ]
    strangers += [
      f"array {n}: not in this model" for n in saved.keys() - arrays
    ]
    damage += find_damage(meta.folder / item, saved)
  problems = tuple(sorted(strangers + damage))
  if not problems:
    return
  lines = "\n".join(f"  {line}" for line in problems)
  text = f"{meta.folder}: damaged\n{lines}\n{_fix(meta.folder)}"
  # Arrays of another model: every other checkpoint has the same.
  raise CheckpointError(text) if strangers else DamagedError(text, problems)


def load_arrays(
  meta: CheckpointMeta, items: dict[str, dict[str, Any]]
) -> dict[str, Any]:
  """The arrays of the named items, as `items` describes them."""
  try:
    with context():
      return ocp.load_checkpointables(str(meta.folder), items)
  except Exception as error:  # Orbax hides the reason in the cause.
    problem = f"cannot be loaded ({_cause(error)})"
    raise DamagedError(
      f"{meta.folder}: {problem}\n{_fix(meta.folder)}", (problem,)
    ) from error


def fill(like: Any, arrays: dict[str, Any], prefix: str = "") -> Any:
  """The pytree `like` with its leaves replaced by name."""
  return jax.tree_util.tree_map_with_path(
    lambda path, _: arrays[prefix + leaf_name(path)], like
  )


def context() -> ocp.Context:
  """How Orbax reads and writes here."""
  # One folder per array (no OCDBT), so that damage has a name and a place.
  context = ocp.Context()
  context.array.saving.use_ocdbt = False
  return context


def _cause(error: BaseException) -> str:
  while error.__cause__ is not None:
    error = error.__cause__
  text = str(error).split(" [")[0].split("\n")[0][:300]
  return f"{type(error).__name__}: {text}"


def _fix(folder: pathlib.Path) -> str:
  others = [
    step for step in saved_steps(folder.parent) if step != int(folder.name)
  ]
  if others:
    return f"  fix: delete {folder} to go back to step {max(others)}"
  return "  fix: restore the folder from a copy, or train again"


def saved_steps(root: pathlib.Path) -> list[int]:
  """Steps of the complete checkpoints in a folder."""
  if not root.is_dir():
    return []
  return [
    int(p.name) for p in root.iterdir() if p.name.isdigit() and p.is_dir()
  ]
