"""Where metrics are shown while a run goes on: TensorBoard, Weights & Biases.

Neither is the record of a run: that is `metrics.jsonl`.
"""

import hashlib
import importlib.util
import os
import pathlib
from typing import Any, Protocol

from hsa_jax import config as config_lib
from hsa_jax.config import Config, ConfigError


class Board(Protocol):
  """A place to show numbers."""

  def write(self, step: int, values: dict[str, float]) -> None:
    """Shows the values of one record."""
    ...

  def close(self) -> None:
    """Sends what is left."""
    ...


class TensorBoard:
  """Event files in `workdir/tensorboard`."""

  def __init__(self, workdir: str | os.PathLike[str], *, start_step: int):
    """Hides what lost steps after `start_step` had written."""
    import tensorboardX  # Slow to import, and only a run needs it.

    folder = str(pathlib.Path(workdir) / "tensorboard")
    self._writer: Any = tensorboardX.SummaryWriter(
      folder, purge_step=start_step + 1
    )

  def write(self, step: int, values: dict[str, float]) -> None:
    for name, value in values.items():
      self._writer.add_scalar(name, value, step)

  def close(self) -> None:
    self._writer.close()


class WandbBoard:
  """A run of Weights & Biases; a resumed run goes on as the same one.

  It takes no step twice, so steps that were lost and made again show the values
  of the first time; `metrics.jsonl` has the others.
  """

  def __init__(self, cfg: Config, workdir: str | os.PathLike[str]):
    """Starts or resumes the run of this workdir.

    Args:
      cfg: `train.wandb_project` is the project; stored beside the run.
      workdir: its name is the run's, its path the run's identity.
    """
    import wandb  # type: ignore[import-not-found]  # an extra

    path = pathlib.Path(workdir).absolute()
    identity = f"{path}:{config_lib.config_hash(cfg)}"
    self._run: Any = wandb.init(
      project=cfg.train.wandb_project,
      name=path.name,
      id=hashlib.sha256(identity.encode()).hexdigest()[:16],
      resume="allow",
      dir=str(path),
      config=config_lib.to_dict(cfg),
    )

  def write(self, step: int, values: dict[str, float]) -> None:
    self._run.log(values, step=step)

  def close(self) -> None:
    self._run.finish()


def check_boards(cfg: Config) -> None:
  """Refuses a board whose package is not installed.

  Raises:
    ConfigError: naming the field, and what to install.
  """
  project = cfg.train.wandb_project
  spec = importlib.util.find_spec("wandb") if project else None
  # A mere folder of that name, which the package itself makes, has no origin.
  if project and (spec is None or spec.origin is None):
    raise ConfigError(
      [
        f"train.wandb_project = {project!r}: Weights & Biases is not"
        " installed; pip install 'hsa_jax[wandb]', or leave the field empty"
      ]
    )


def open_boards(
  cfg: Config, workdir: str | os.PathLike[str], *, start_step: int
) -> list[Board]:
  """The boards that a run shows its metrics on."""
  boards: list[Board] = [TensorBoard(workdir, start_step=start_step)]
  if cfg.train.wandb_project:
    boards.append(WandbBoard(cfg, workdir))
  return boards
