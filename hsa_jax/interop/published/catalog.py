"""The published models that can be read, by the name in their `config.json`."""

import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

from hsa_jax.config import Config, validate
from hsa_jax.interop.published import cohere2, mamba2
from hsa_jax.interop.published.errors import PublishedError
from hsa_jax.interop.published.plan import Imported, check_plan
from hsa_jax.interop.published.safetensors import Stored, find_tensors
from hsa_jax.interop.published.settings import FILE, Settings

Reader = Callable[[Settings], Imported]
READERS: dict[str, Reader] = {
  cohere2.NAME: cohere2.read,
  mamba2.NAME: mamba2.read,
}


class Published(NamedTuple):
  """A folder of published weights, checked, nothing of it loaded.

  Attributes:
    imported: the model, and where its parameters come from.
    tensors: of the files, by name.
  """

  imported: Imported
  tensors: dict[str, Stored]


def open_published(
  folder: pathlib.Path, ignore: Sequence[str] = ()
) -> Published:
  """Reads `config.json` and the headers of the weights; loads no tensor.

  Args:
    folder: of one model.
    ignore: fields of `config.json` to overlook.

  Raises:
    PublishedError: naming every field or tensor that is wrong.
    ConfigError: sizes that do not go with one another.
  """
  settings = Settings.load(folder / FILE)
  imported = _reader_of(settings)(settings)
  settings.ignore(*ignore)
  settings.close()
  validate(Config(model=imported.model), where=str(settings.path))
  tensors = find_tensors(folder)
  check_plan(imported, tensors, folder)
  return Published(imported, tensors)


def _reader_of(settings: Settings) -> Reader:
  """By the field `architectures`, which state-spaces' own files lack."""
  names = settings.raw("architectures", [])
  known = [name for name in READERS if names == [name]]
  if known:
    return READERS[known[0]]
  if not names and settings.has("ssm_cfg"):
    return mamba2.read_original
  raise PublishedError(
    settings.path,
    [f"architectures = {names}: must be one of {', '.join(READERS)}"],
  )
