"""The `--config` flag of the commands, with errors a person can act on."""

import dataclasses
import difflib
import os
import re
import typing
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags
from ml_collections import config_flags

from hsa_jax import config as config_lib
from hsa_jax.config import Config, ConfigError

NAME = "config"
_OVERRIDE = re.compile(r"--?(?:no)?config\.([^=]+)")


class UsageError(ValueError):
  """The command line cannot be understood."""


def parse(
  argv: Sequence[str], define: Callable[[flags.FlagValues], None]
) -> flags.FlagValues:
  """Parses the arguments of a command, which may come in any order.

  Args:
    argv: as `sys.argv`.
    define: adds the flags that the command has beside `--config`.

  Returns:
    The parsed flags, apart from absl's global ones.

  Raises:
    UsageError: an unknown flag, a wrong value, a config file that fails.
    ConfigError: an override of a field that does not exist, or of a wrong type.
  """
  unknown = [line for arg in argv[1:] if (line := _unknown_field(arg))]
  if unknown:
    raise ConfigError(unknown, "the command line")
  argv = _config_first(argv)
  values = flags.FlagValues()
  config_flags.DEFINE_config_file(
    NAME, None, "file with get_config()", flag_values=values, sys_argv=argv
  )
  define(values)
  _check_file(argv)
  try:
    extra = values(argv)[1:]
    config: Any = values[NAME].value
    if config is not None:
      config.to_dict()  # A broken file complains on first use.
  except flags.Error as error:
    raise _explain(error) from error
  except Exception as error:  # Whatever the user's Python file raises.
    raise UsageError(f"the config file failed: {_short(error)}") from error
  if extra:
    raise UsageError(f"{extra[0]!r} is not a flag; flags begin with --")
  flags.FLAGS.mark_as_parsed()  # Libraries look at the global flags.
  return values


def source_name(values: flags.FlagValues) -> str:
  """The config file and the number of overrides, for messages."""
  name = config_flags.get_config_filename(values[NAME])
  count = len(config_flags.get_override_values(values[NAME]))
  plural = "" if count == 1 else "s"
  return f"{name} (with {count} override{plural})" if count else name


def read_config(values: flags.FlagValues) -> Config:
  """The configuration of parsed flags.

  Raises:
    UsageError: `--config` was not given.
    ConfigError: unknown fields and wrong types.
  """
  source = values[NAME].value
  if source is None:
    raise UsageError(
      "--config=FILE is missing, as in --config=configs/quickstart.py"
    )
  return config_lib.from_dict(source, where=source_name(values))


def _config_first(argv: Sequence[str]) -> list[str]:
  """The config must be loaded before its overrides are applied."""
  program, *rest = argv
  for i, arg in enumerate(rest):
    if re.fullmatch(r"--?config(=.*)?", arg):
      size = 1 if "=" in arg else 2
      return [program, *rest[i : i + size], *rest[:i], *rest[i + size :]]
  return [program, *rest]


def _check_file(argv: Sequence[str]) -> None:
  """The config file exists; ml_collections says so in a roundabout way."""
  if len(argv) < 2 or not re.match(r"--?config(=|$)", argv[1]):
    return
  value = argv[1].partition("=")[2] or "".join(argv[2:3])
  path = value.split(":")[0]
  if not os.path.isfile(path):
    raise UsageError(f"--config={value}: there is no file {path!r}")


def _explain(error: flags.Error) -> Exception:
  """Names field and type where a value could not be converted."""
  match = re.match(r"flag --config\.([^=]+)=(.*?): ", str(error), re.DOTALL)
  if match is None:
    return UsageError(_short(error))
  hint = _hint(match[1])
  kind = hint.__name__ if isinstance(hint, type) else str(hint)
  line = f"{match[1]} = {match[2]!r}: must be {kind}"
  return ConfigError([line], "the command line")


def _hint(path: str) -> Any:
  kind: Any = Config
  for part in path.split("."):
    kind = _fields(kind)[part.split("[")[0]]
    kind = _element(kind) if "[" in part else kind
  return kind


def _unknown_field(argument: str) -> str | None:
  """A line about an override whose field does not exist, else None."""
  match = _OVERRIDE.match(argument)
  if match is None:
    return None
  kind: Any = Config
  for i, part in enumerate(match[1].split(".")):
    name = part.split("[")[0]
    fields = _fields(kind)
    if name not in fields:
      path = ".".join([*match[1].split(".")[:i], part])
      return f"{path}: no such field{_suggest(name, fields)}"
    kind = _element(fields[name]) if "[" in part else fields[name]
  return None


def _fields(kind: Any) -> dict[str, Any]:
  if not dataclasses.is_dataclass(kind):
    return {}
  hints = typing.get_type_hints(kind)
  return {f.name: hints[f.name] for f in dataclasses.fields(kind)}


def _element(hint: Any) -> Any:
  arguments = typing.get_args(hint)
  return arguments[0] if arguments else None


def _suggest(name: str, fields: dict[str, Any]) -> str:
  close = difflib.get_close_matches(name, fields, n=1, cutoff=0.5)
  if close:
    return f"; did you mean {close[0]!r}?"
  return f"; the fields here are {', '.join(fields)}" if fields else ""


def _short(error: BaseException) -> str:
  """The message; of a traceback inside it, its last line and the place."""
  lines = [line for line in str(error).splitlines() if line.strip()]
  places = [line.strip() for line in lines if line.strip().startswith("File ")]
  if not places:
    return " ".join(line.strip() for line in lines[:3])
  return f"{lines[-1].strip()} ({places[-1]})"
