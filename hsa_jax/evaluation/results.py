"""Files of an evaluation: they survive a crash and hold all that is reported.

    run.json           what was evaluated; a folder holds one run only
    predictions.jsonl  one line per finished sample, flushed at once
    results.jsonl      one line per (suite, task, variant, length)

Tables and plots are made from these files alone. A sample that is in
`predictions.jsonl` is not computed again.
"""

import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

# The fields that say which measurement a line belongs to. `num_samples` is one
# of them, because the depth of sample i depends on how many there are.
KEY = (
  "suite",
  "protocol",
  "task",
  "haystack",
  "needle",
  "length",
  "num_samples",
)


class ResultsError(RuntimeError):
  """A results folder that cannot be used, with what to do about it."""


class RunInfo(NamedTuple):
  """What a results folder is about.

  Attributes:
    label: short name in tables.
    checkpoint: path of the checkpoint.
    step: optimizer steps it was trained for.
    config_hash: of the model's resolved configuration.
    tokenizer: fingerprint of the tokenizer.
    store: SHA-256 of the token store's tokens.
    seed: of the evaluation samples.
    train_length: longest training row, in tokens.
    num_parameters: of the model.
    receptive_field: tokens that an output depends on; None: unlimited.
    kv_dtype: how the memory stored keys and values.
    overrides: fields of the configuration that were not those of training; they
      are in its hash.
  """

  label: str
  checkpoint: str
  step: int
  config_hash: str
  tokenizer: str
  store: str
  seed: int
  train_length: int
  num_parameters: int
  receptive_field: int | None
  kv_dtype: str = "computed"
  overrides: str = ""

  @property
  def name(self) -> str:
    """The label, with what makes the model another one than was trained.

    That is the stored type of keys and values where it rounds, and overrides.
    """
    rounded = self.kv_dtype if self.kv_dtype != "computed" else ""
    other = "; ".join(filter(None, (rounded, self.overrides)))
    return f"{self.label} ({other})" if other else self.label


# Two runs with equal values here measure the same thing. Where chunks lived and
# how the prefill read are not among them: every home and both prefills compute
# the same function, so one run may go on with what another began. Each
# prediction line says which it was, because the cost does depend on it.
_IDENTITY = ("step", "config_hash", "tokenizer", "store", "seed", "kv_dtype")


class ResultStore:
  """The files of one evaluation folder, open for appending."""

  def __init__(self, workdir: str | os.PathLike, info: RunInfo):
    """Opens or makes the folder.

    Raises:
      ResultsError: if it cannot be written, or holds another run.
    """
    self.path = pathlib.Path(workdir)
    self.info = info
    check_writable(self.path)
    _claim(self.path, info)
    for name in ("predictions.jsonl", "results.jsonl"):
      _drop_torn_line(self.path / name)
    self._done: dict[tuple, dict[int, dict]] = {}
    for row in read_lines(self.path / "predictions.jsonl"):
      self._done.setdefault(key_of(row), {})[row["sample"]] = row

  def finished(self, key: Mapping[str, Any]) -> dict[int, dict]:
    """Prediction lines of one measurement so far, by sample number."""
    return dict(self._done.get(key_of(key), {}))

  def add_prediction(self, row: Mapping[str, Any]) -> None:
    """Appends the line of one finished sample."""
    append_line(self.path / "predictions.jsonl", row)
    self._done.setdefault(key_of(row), {})[row["sample"]] = dict(row)

  def add_result(self, row: Mapping[str, Any]) -> None:
    """Appends a result line, unless the very same line is there already."""
    line = {**row, **_provenance(self.info)}
    if json.loads(json.dumps(line)) not in read_lines(
      self.path / "results.jsonl"
    ):
      append_line(self.path / "results.jsonl", line)


def identity(info: RunInfo) -> dict[str, Any]:
  """What distinguishes runs that do not measure the same thing."""
  fields = info._asdict()
  return {name: fields[name] for name in _IDENTITY}


def key_of(row: Mapping[str, Any]) -> tuple:
  """The measurement that a line belongs to."""
  return tuple(row[name] for name in KEY)


def append_line(path: pathlib.Path, row: Mapping[str, Any]) -> None:
  """Appends one JSON line and waits until it is on disk.

  Raises:
    ResultsError: if the disk is full or fails; the lines before stay whole.
  """
  try:
    with path.open("a", encoding="utf-8") as file:
      file.write(json.dumps(row) + "\n")
      file.flush()
      os.fsync(file.fileno())
  except OSError as error:
    raise ResultsError(
      f"{path}: {error.strerror}; make room, then run the same command: the"
      " samples finished before this one are kept"
    ) from error


def read_lines(path: pathlib.Path) -> list[dict]:
  """All complete lines; an unfinished last line is left out.

  Raises:
    ResultsError: for a line in the middle that is not JSON.
  """
  if not path.exists():
    return []
  *lines, _ = path.read_text(encoding="utf-8").split("\n")
  try:
    return [json.loads(line) for line in lines]
  except ValueError as error:
    raise ResultsError(
      f"{path}: not a file of JSON lines ({error}); remove it to start over"
    ) from None


def read_info(path: str | os.PathLike) -> RunInfo:
  """The `run.json` of a results folder.

  Raises:
    ResultsError: if there is none or it cannot be read.
  """
  file = pathlib.Path(path) / "run.json"
  if not file.exists():
    raise ResultsError(f"{path}: no evaluation results here (no run.json)")
  try:
    return RunInfo(**json.loads(file.read_text(encoding="utf-8")))
  except (ValueError, TypeError) as error:
    raise ResultsError(f"{file}: unreadable ({error})") from None


def latest_results(rows: Iterable[dict]) -> list[dict]:
  """One line per measurement point: the last one written.

  Of lines that differ in the number of samples only, the last one counts.
  """
  latest: dict[tuple, dict] = {}
  for row in rows:
    point = tuple(row[name] for name in KEY if name != "num_samples")
    latest.pop(point, None)
    latest[point] = row
  return list(latest.values())


def _provenance(info: RunInfo) -> dict[str, Any]:
  return {
    "model": info.label,
    "checkpoint": info.checkpoint,
    "step": info.step,
    "config_hash": info.config_hash,
    "seed": info.seed,
  }


def check_writable(path: str | os.PathLike, *, flag: str = "--workdir") -> None:
  """Makes the folder; raises `ResultsError` if nothing can be written there."""
  path = pathlib.Path(path)
  try:
    path.mkdir(parents=True, exist_ok=True)
    probe = path / ".write_test"
    probe.touch()
    probe.unlink()
  except OSError as error:
    reason = error.strerror or str(error)
    raise ResultsError(
      f"{flag}={path}: cannot be written ({reason}); name a folder of yours"
    ) from None


def _claim(path: pathlib.Path, info: RunInfo) -> None:
  """Writes `run.json`, or checks that the one there is of the same run."""
  file = path / "run.json"
  if not file.exists():
    temporary = path / ".run.json.tmp"
    temporary.write_text(json.dumps(info._asdict(), indent=2) + "\n")
    temporary.replace(file)
    return
  old, new = identity(read_info(path)), identity(info)
  other = [
    f"{name}: {old[name]} there, {new[name]} now"
    for name in _IDENTITY
    if old[name] != new[name]
  ]
  if other:
    raise ResultsError(
      f"--workdir={path}: holds the results of another run"
      f" ({'; '.join(other)}); nothing was changed; name another folder"
    )


def _drop_torn_line(path: pathlib.Path) -> None:
  """Cuts off what a crash left of a line that was being written."""
  if not path.exists():
    return
  with path.open("rb+") as file:
    data = file.read()
    file.truncate(data.rfind(b"\n") + 1)
