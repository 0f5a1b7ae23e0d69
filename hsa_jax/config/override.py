"""Some fields of a configuration replaced, named by their dotted path.

The paths are those of the command line: `model.hsa.top_k`,
`data.stages[1].seq_len`.
"""

import re
from collections.abc import Mapping
from typing import Any

from hsa_jax.config.convert import ConfigError, from_dict, to_dict
from hsa_jax.config.fields import Config

_PART = re.compile(r"([A-Za-z_0-9]+)((?:\[[0-9]+\])*)")


def with_overrides(
  cfg: Config, overrides: Mapping[str, Any], where: str = "the overrides"
) -> Config:
  """`cfg` with the fields at some paths replaced; conversion is strict.

  Args:
    cfg: the configuration to start from; stays as it is.
    overrides: values by path: plain ones, enum members, whole groups of fields
      (a dataclass or a mapping), or tuples of these.
    where: name of the source, for the message.

  Raises:
    ConfigError: listing every path that leads nowhere, every wrong type.
  """
  tree, problems = _thaw(to_dict(cfg)), []
  for path, value in overrides.items():
    problem = _put(tree, path, _thaw(_plain(value)))
    if problem:
      problems.append(problem)
  if problems:
    raise ConfigError(problems, where)
  return from_dict(tree, where=where)


def covers(claimed: str, path: str) -> bool:
  """Whether a field at `path` lies at or below the path `claimed`."""
  return path == claimed or path.startswith((claimed + ".", claimed + "["))


def _put(tree: Any, path: str, value: Any) -> str:
  """Writes `value` into the tree; returns what is wrong with the path."""
  keys = _keys(path)
  if not keys:
    return f"{path!r}: not a path of fields, as model.hsa.top_k"
  for depth, key in enumerate(keys):
    if not _has(tree, key):
      if depth == len(keys) - 1 and isinstance(tree, dict):
        break  # Conversion names the nearest field.
      return f"{path}: there is no {key!r}{_below(keys[:depth])}"
    if depth < len(keys) - 1:
      tree = tree[key]
  tree[keys[-1]] = value
  return ""


def _keys(path: str) -> list[str | int]:
  """`stages[1].seq_len` -> `["stages", 1, "seq_len"]`; [] if it is none."""
  keys: list[str | int] = []
  for part in path.split("."):
    match = _PART.fullmatch(part)
    if match is None:
      return []
    keys += [match[1], *map(int, re.findall(r"[0-9]+", match[2]))]
  return keys


def _has(tree: Any, key: str | int) -> bool:
  if isinstance(key, int):
    return isinstance(tree, list) and key < len(tree)
  return isinstance(tree, dict) and key in tree


def _below(keys: list[str | int]) -> str:
  return f" in {'.'.join(map(str, keys))}" if keys else ""


def _plain(value: Any) -> Any:
  if isinstance(value, Mapping):
    return {key: _plain(item) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return tuple(_plain(item) for item in value)
  return to_dict(value)


def _thaw(value: Any) -> Any:
  """Tuples as lists, so that their elements can be replaced."""
  if isinstance(value, dict):
    return {key: _thaw(item) for key, item in value.items()}
  if isinstance(value, tuple):
    return [_thaw(item) for item in value]
  return value
