"""`--override`: fields of a finished checkpoint that may differ from training.

Only what no parameter's shape and no other part of the model depends on: the
rotary angles of full layers (`config.RopeConfig`). What is overridden enters
the hash of the configuration, so results with and without it never mix.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from hsa_jax.config import Config, RopeConfig, from_dict, to_dict, validate
from hsa_jax.evaluation.lengths import FlagError

_PREFIX = "model.rope."
_FIELDS = tuple(field.name for field in dataclasses.fields(RopeConfig))


def add_override_flag(add: Callable[..., Any]) -> None:
  """Adds the flag by a parser's `add_argument`."""
  add(
    "--override",
    default="",
    metavar="NAME=NUMBER,...",
    help="fields of the checkpoint's configuration that need no training, as"
    " model.rope.factor=4,model.rope.original_length=1024 (YaRN) or"
    " model.rope.theta=1000000; such results need a --workdir of their own",
  )


def read_overrides(text: str) -> dict[str, int | float]:
  """`"model.rope.factor=4"` -> {"model.rope.factor": 4}; several by commas.

  Raises:
    FlagError: for anything but `model.rope.NAME=NUMBER`.
  """
  found: dict[str, int | float] = {}
  problems = []
  for part in filter(None, text.split(",")):
    name, _, value = (piece.strip() for piece in part.partition("="))
    number = _number(value)
    if not name.startswith(_PREFIX) or name[len(_PREFIX) :] not in _FIELDS:
      problems.append(
        f"--override: {name!r} cannot change on a finished checkpoint; one of"
        f" {', '.join(_PREFIX + field for field in _FIELDS)}"
      )
    elif number is None:
      problems.append(f"--override: {name}={value!r}: must be a number")
    else:
      found[name] = number
  if problems:
    raise FlagError(problems)
  return found


def overridden(cfg: Config, overrides: dict[str, int | float]) -> Config:
  """The configuration with these fields, checked as a whole.

  Raises:
    ConfigError: naming every rule that is broken.
  """
  if not overrides:
    return cfg
  fields: dict[str, Any] = to_dict(cfg)
  for name, value in overrides.items():
    fields["model"]["rope"][name.removeprefix(_PREFIX)] = value
  changed = from_dict(fields, where="the configuration with --override")
  validate(changed, where="the configuration with --override")
  return changed


def _number(text: str) -> int | float | None:
  for kind in (int, float):
    try:
      return kind(text)
    except ValueError:
      continue
  return None
