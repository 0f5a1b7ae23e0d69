"""Strict conversion between `Config`, plain dictionaries, JSON and ConfigDict.

Unknown keys, missing types and bad enum values are all collected and raised as
one `ConfigError`, each with the nearest valid name.
"""

import collections.abc
import dataclasses
import difflib
import enum
import hashlib
import json
import types
import typing
from typing import Any

import ml_collections

from hsa_jax.config.fields import ADDED_LATER, Config


class ConfigError(ValueError):
  """One or more things wrong with a configuration.

  Attributes:
    problems: one line each: the key, its value, the rule, the nearest fix.
  """

  def __init__(self, problems: list[str], where: str = "the configuration"):
    self.problems = list(problems)
    count = len(self.problems)
    head = f"{count} problem{'s' if count != 1 else ''} in {where}"
    super().__init__("\n  ".join([head, *self.problems]))


def to_dict(cfg: Any) -> Any:
  """Plain dictionaries, tuples, strings and numbers, ready for JSON."""
  if dataclasses.is_dataclass(cfg):
    return {
      f.name: to_dict(getattr(cfg, f.name)) for f in dataclasses.fields(cfg)
    }
  if isinstance(cfg, tuple):
    return tuple(to_dict(item) for item in cfg)
  return str(cfg) if isinstance(cfg, enum.Enum) else cfg


def to_json(cfg: Config) -> str:
  """Stable text of the resolved configuration."""
  return json.dumps(to_dict(cfg), indent=2)


def from_json(text: str, where: str = "the configuration") -> Config:
  """Inverse of `to_json`; raises `ConfigError`."""
  return from_dict(json.loads(text), where=where)


def config_hash(cfg: Any) -> str:
  """First 12 hexadecimal digits of the SHA-256 of the resolved fields.

  Fields marked `ADDED_LATER` count only where they are not at their default.
  """
  text = json.dumps(_hashed(cfg), sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:12]


def _hashed(cfg: Any) -> Any:
  """`to_dict` without later fields that are at their default."""
  if isinstance(cfg, tuple):
    return tuple(_hashed(item) for item in cfg)
  if not dataclasses.is_dataclass(cfg):
    return to_dict(cfg)
  return {
    f.name: _hashed(getattr(cfg, f.name))
    for f in dataclasses.fields(cfg)
    if not (f.metadata == ADDED_LATER and getattr(cfg, f.name) == f.default)
  }


def to_config_dict(cfg: Config) -> ml_collections.ConfigDict:
  """What `get_config()` in a config file returns."""

  def convert(value: Any) -> Any:
    if isinstance(value, dict):
      items = {k: convert(v) for k, v in value.items()}
      return ml_collections.ConfigDict(items, sort_keys=False)
    if isinstance(value, tuple):
      return tuple(convert(v) for v in value)
    return value

  return convert(to_dict(cfg))


def from_dict(source: Any, where: str = "the configuration") -> Config:
  """Builds a `Config`; every key must exist and have its declared type.

  Args:
    source: nested mapping (a ConfigDict or a dictionary). Missing keys take
      their defaults.
    where: name of the source, for the message.

  Raises:
    ConfigError: listing every unknown key and every wrong type.
  """
  problems: list[str] = []
  cfg = _build(Config, source, "", problems)
  if problems:
    raise ConfigError(problems, where)
  return cfg


def differences(old: Config, new: Config) -> list[str]:
  """`key: old -> new` for every field that differs."""
  flat_old, flat_new = _flatten(to_dict(old)), _flatten(to_dict(new))
  keys = list(dict.fromkeys([*flat_old, *flat_new]))
  return [
    f"{key}: {flat_old.get(key, '(absent)')} -> {flat_new.get(key, '(absent)')}"
    for key in keys
    if flat_old.get(key, "(absent)") != flat_new.get(key, "(absent)")
  ]


def _flatten(value: Any, path: str = "") -> dict[str, Any]:
  if isinstance(value, dict):
    items = [(f"{path}.{k}" if path else k, v) for k, v in value.items()]
  elif isinstance(value, tuple) and value:
    items = [(f"{path}[{i}]", v) for i, v in enumerate(value)]
  else:
    return {path: value}
  return {k: leaf for p, v in items for k, leaf in _flatten(v, p).items()}


def _build(kind: type, source: Any, path: str, problems: list[str]) -> Any:
  if not isinstance(
    source, collections.abc.Mapping | ml_collections.ConfigDict
  ):
    problems.append(f"{path} = {source!r}: must be a group of fields")
    return kind()
  hints = typing.get_type_hints(kind)
  values = {}
  for key, value in source.items():
    name = f"{path}.{key}" if path else str(key)
    if key not in hints or not _is_field(kind, key):
      problems.append(f"{name} = {value!r}: no such field{_nearest(key, kind)}")
    else:
      values[key] = _convert(hints[key], value, name, problems)
  return kind(**values)


def _is_field(kind: type, key: str) -> bool:
  return any(f.name == key for f in dataclasses.fields(kind))


def _nearest(key: str, kind: type) -> str:
  names = [f.name for f in dataclasses.fields(kind)]
  close = difflib.get_close_matches(str(key), names, n=1, cutoff=0.5)
  if close:
    return f"; did you mean {close[0]!r}?"
  return f"; the fields here are {', '.join(names)}"


def _convert(hint: Any, value: Any, path: str, problems: list[str]) -> Any:
  """`value` as the type `hint`, or a line in `problems`."""
  if dataclasses.is_dataclass(hint):
    return _build(typing.cast(type, hint), value, path, problems)
  if isinstance(hint, type) and issubclass(hint, enum.Enum):
    return _enum(hint, value, path, problems)
  if typing.get_origin(hint) is tuple:
    return _tuple(hint, value, path, problems)
  if isinstance(hint, types.UnionType):
    inner = [h for h in typing.get_args(hint) if h is not type(None)][0]
    return None if value is None else _convert(inner, value, path, problems)
  if hint is float and isinstance(value, int) and not isinstance(value, bool):
    return float(value)
  if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
    got = type(value).__name__
    problems.append(f"{path} = {value!r}: must be {hint.__name__}, got {got}")
  return value


def _enum(hint: type, value: Any, path: str, problems: list[str]) -> Any:
  choices = [str(member) for member in hint]  # type: ignore[attr-defined]
  if str(value) in choices:
    return hint(str(value))
  close = difflib.get_close_matches(str(value), choices, n=1, cutoff=0.4)
  hint_text = f"; did you mean {close[0]!r}?" if close else ""
  problems.append(
    f"{path} = {value!r}: must be one of {', '.join(choices)}{hint_text}"
  )
  return value


def _tuple(hint: Any, value: Any, path: str, problems: list[str]) -> Any:
  if not isinstance(value, tuple | list):
    problems.append(f"{path} = {value!r}: must be a tuple")
    return value
  args = typing.get_args(hint)
  if len(args) == 2 and args[1] is Ellipsis:
    args = (args[0],) * len(value)
  if len(args) != len(value):
    problems.append(f"{path} = {value!r}: must have {len(args)} elements")
    return value
  return tuple(
    _convert(arg, item, f"{path}[{i}]", problems)
    for i, (arg, item) in enumerate(zip(args, value, strict=True))
  )
