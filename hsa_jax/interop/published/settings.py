"""The fields of a `config.json`, each read once, none overlooked.

A field that nobody asks for may be the one that makes it another model. So
reading ends with `close`, which refuses what is left by name.
"""

import json
import pathlib
from collections.abc import Callable
from typing import Any

from hsa_jax.interop.published.errors import PublishedError

FILE = "config.json"
# About generation, training and the library, not about the function computed.
HARMLESS = (
  "_name_or_path",
  "architectures",
  "attention_dropout",
  "bos_token_id",
  "cache_implementation",
  "eos_token_id",
  "model_type",
  "pad_token_id",
  "transformers_version",
  "use_cache",
)


class Settings:
  """A `config.json` that is being read; problems are told by `close`."""

  def __init__(
    self, path: pathlib.Path, values: dict[str, Any], prefix: str = ""
  ):
    """Begins to read.

    Args:
      path: of the file.
      values: its fields, or those of a group in it.
      prefix: of names, for messages.
    """
    self.path, self._prefix = path, prefix
    self.problems: list[str] = []
    self._values = values
    self._left = set(values)
    self._groups: list[Settings] = []

  @classmethod
  def load(cls, path: pathlib.Path) -> "Settings":
    """Those of a file.

    Raises:
      PublishedError: if it is none.
    """
    try:
      values = json.loads(path.read_bytes())
    except OSError as error:
      raise PublishedError(
        path, [f"{error.strerror}: give the folder that holds it"]
      ) from error
    except ValueError as error:
      raise PublishedError(path, [f"not JSON: {error}"]) from error
    if not isinstance(values, dict):
      raise PublishedError(path, ["not a group of fields"])
    return cls(path, values)

  def has(self, name: str) -> bool:
    """Whether a field is there and not null."""
    return self._values.get(name) is not None

  def group(self, name: str) -> "Settings":
    """The fields of a group; of none, if it is absent."""
    values = self.raw(name, {})
    if not isinstance(values, dict):
      self.refuse(name, values, "must be a group of fields")
      values = {}
    found = Settings(self.path, values, f"{self._prefix}{name}.")
    self._groups.append(found)
    return found

  def raw(self, name: str, otherwise: Any = None) -> Any:
    """A field as it is; `otherwise` if it is absent or null."""
    self._left.discard(name)
    value = self._values.get(name)
    return otherwise if value is None else value

  def count(self, name: str, otherwise: int | None = None) -> int:
    """A whole number above zero."""
    return self._checked(
      name,
      otherwise,
      lambda v: isinstance(v, int) and not isinstance(v, bool) and v >= 1,
      "must be a whole number above 0",
      1,
    )

  def number(self, name: str, otherwise: float | None = None) -> float:
    """A number above zero."""
    value = self._checked(
      name,
      otherwise,
      lambda v: (
        isinstance(v, int | float) and not isinstance(v, bool) and v > 0
      ),
      "must be a number above 0",
      1.0,
    )
    return float(value)

  def switch(self, name: str, otherwise: bool) -> bool:
    """True or false."""
    return self._checked(
      name,
      otherwise,
      lambda v: isinstance(v, bool),
      "must be true or false",
      otherwise,
    )

  def demand(self, name: str, *allowed: Any, why: str) -> None:
    """Refuses every other value; the field may be absent or null."""
    value = self.raw(name, allowed[0])
    if not any(value == one and type(value) is type(one) for one in allowed):
      self.refuse(name, value, why)

  def ignore(self, *names: str) -> None:
    """Fields that do not change what is computed; `group.field` below one."""
    self._left -= set(names)
    for group in self._groups:
      start = group._prefix.removeprefix(self._prefix)
      group.ignore(
        *(n.removeprefix(start) for n in names if n.startswith(start))
      )

  def refuse(self, name: str, value: Any, why: str) -> None:
    """Notes a problem with a field."""
    self.problems.append(f"{self._prefix}{name} = {json.dumps(value)}: {why}")

  def close(self) -> None:
    """Ends the reading.

    Raises:
      PublishedError: naming all fields that are wrong, or not known.
    """
    self.ignore(*HARMLESS)
    problems = self._all_problems()
    if problems:
      raise PublishedError(self.path, problems)

  def _all_problems(self) -> list[str]:
    """Its own, those of its groups, and fields that nobody asked for."""
    left = [n for n in sorted(self._left) if self._values[n] is not None]
    unknown = [
      f"{self._prefix}{name} = {json.dumps(self._values[name])}: not known"
      " here, and may change what is computed; if it does not, pass"
      f" --ignore={self._prefix}{name}"
      for name in left
    ]
    below = [line for group in self._groups for line in group._all_problems()]
    return [*self.problems, *below, *unknown]

  def _checked(
    self,
    name: str,
    otherwise: Any,
    good: Callable[[Any], bool],
    rule: str,
    stand_in: Any,
  ) -> Any:
    value = self.raw(name, otherwise)
    if value is None:
      self.problems.append(f"{self._prefix}{name}: is missing; {rule}")
      return stand_in
    if not good(value):
      self.refuse(name, value, rule)
      return stand_in
    return value
