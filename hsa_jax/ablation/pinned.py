"""A resolved configuration as a config file: --config=THIS_FILE:config.json.

The runs of a grid are trained from the configuration that was resolved and
checked when the grid was started, whatever happens to its file meanwhile.
"""

import pathlib

import ml_collections

from hsa_jax.config import Config, from_json, to_config_dict, to_json
from hsa_jax.training.workdir import CONFIG_FILE


def get_config(path: str) -> ml_collections.ConfigDict:
  """The configuration in a JSON file.

  Raises:
    ConfigError: it does not hold a configuration of this version.
    OSError: it cannot be read.
  """
  return to_config_dict(from_json(pathlib.Path(path).read_text(), where=path))


def pin(folder: pathlib.Path, cfg: Config) -> pathlib.Path:
  """Writes a run's configuration as `train.py` would; returns its path."""
  path = folder / CONFIG_FILE
  if not path.exists():
    temporary = path.with_suffix(".tmp")
    temporary.write_text(to_json(cfg) + "\n", encoding="utf-8")
    temporary.replace(path)
  return path
