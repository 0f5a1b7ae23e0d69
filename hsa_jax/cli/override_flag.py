"""`--override`: fields of a finished checkpoint that may differ from training.

Only what no parameter's shape depends on: the rotary angles of full layers
(`config.RopeConfig`) and the number of chunks that a token reads. What is
overridden enters the hash of the configuration, so results with and without it
never mix.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from hsa_jax.config import Config, RopeConfig, validate, with_overrides
from hsa_jax.evaluation.lengths import FlagError

_FIELDS = (
  *(f"model.rope.{field.name}" for field in dataclasses.fields(RopeConfig)),
  "model.hsa.top_k",
)
_WHERE = "the configuration with --override"


def add_override_flag(add: Callable[..., Any]) -> None:
  """Adds the flag by a parser's `add_argument`."""
  add(
    "--override",
    default="",
    metavar="NAME=NUMBER,...",
    help="fields of the checkpoint's configuration that need no training, as"
    " model.rope.factor=4,model.rope.original_length=1024 (YaRN),"
    " model.rope.theta=1000000 or model.hsa.top_k=16; such results need a"
    " --workdir of their own",
  )


def read_overrides(text: str) -> dict[str, int | float]:
  """`"model.rope.factor=4"` -> {"model.rope.factor": 4}; several by commas.

  Raises:
    FlagError: for any other field, and for what is not a number.
  """
  found: dict[str, int | float] = {}
  problems = []
  for part in filter(None, text.split(",")):
    name, _, value = (piece.strip() for piece in part.partition("="))
    number = _number(value)
    if name not in _FIELDS:
      problems.append(
        f"--override: {name!r} cannot change on a finished checkpoint; one of"
        f" {', '.join(_FIELDS)}"
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
  # Schedules are of training, which is over: another K need not obey them.
  over = {"train.top_k_schedule": (), **overrides}
  changed = with_overrides(cfg, over, where=_WHERE)
  validate(changed, where=_WHERE)
  return changed


def _number(text: str) -> int | float | None:
  for kind in (int, float):
    try:
      return kind(text)
    except ValueError:
      continue
  return None
