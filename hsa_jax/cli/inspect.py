"""Prints what a run folder, a checkpoint, a store or results folder holds.

    python -m hsa_jax.cli.inspect runs/quickstart
    python -m hsa_jax.cli.inspect data/sotu-byte

Reads only; needs no accelerator and loads no arrays.
"""

import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hsa_jax.config import (
  RECURRENT,
  BlockForm,
  Config,
  ConfigError,
  Layer,
  Mlp,
  Norm,
  config_hash,
  layers_of,
)
from hsa_jax.data.errors import DataError
from hsa_jax.data.store import INDEX, TokenStore
from hsa_jax.evaluation import results
from hsa_jax.models.parameters import count_parameters
from hsa_jax.training import checkpoint
from hsa_jax.training.metrics import read_metrics
from hsa_jax.training.workdir import CONFIG_FILE, WorkdirError, read_config

ERRORS = (
  ConfigError,
  DataError,
  WorkdirError,
  checkpoint.CheckpointError,
  results.ResultsError,
)


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  _, *paths = list(sys.argv if argv is None else argv)
  if not paths or any(path.startswith("-") for path in paths):
    print((__doc__ or "").strip(), file=sys.stderr)
    return 0 if {"--help", "-h"} & set(paths) else 2
  try:
    for path in paths:
      print("\n".join(describe(pathlib.Path(path))))
  except ERRORS as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  return 0


def describe(path: pathlib.Path) -> list[str]:
  """Lines about a folder, by what lies in it.

  Raises:
    WorkdirError: for a folder that this package has not made.
    DataError, CheckpointError, ResultsError: for a damaged one.
  """
  kinds: tuple[tuple[str, Callable[[pathlib.Path], Iterator[str]]], ...] = (
    (INDEX, describe_store),
    (CONFIG_FILE, describe_run),
    ("run.json", describe_results),
  )
  for name, function in kinds:
    if (path / name).exists():
      return list(function(path))
  if path.parent.name == checkpoint.FOLDER:
    return list(describe_checkpoint(path))
  raise WorkdirError(
    f"{path}: neither a run, a checkpoint, a token store nor results\n"
    "  fix: give the --workdir of train.py or eval.py, or a token store"
  )


def describe_store(path: pathlib.Path) -> Iterator[str]:
  """Splits and fingerprints of a token store."""
  store = TokenStore.open(path)
  yield f"token store    {path}"
  yield f"  tokenizer    {store.tokenizer_spec}, {store.vocab_size} ids"
  yield f"  fingerprint  {store.fingerprint}"
  yield f"  tokens       sha256 {store.index['sha256']}"
  for name, entry in store.index["splits"].items():
    yield (
      f"  {name:11}  {entry['length']:,} tokens in {entry['documents']}"
      f" documents, {store.bytes_per_token(name):.3f} bytes per token"
    )


def describe_run(path: pathlib.Path) -> Iterator[str]:
  """Configuration, checkpoints, last metrics and evaluations of a run."""
  cfg = read_config(path)
  yield f"run            {path}"
  yield from describe_config(cfg)
  yield from _last_metrics(path)
  try:
    folder = checkpoint.find_checkpoint(path)
  except checkpoint.CheckpointError:
    yield "  checkpoint   none yet"
  else:
    yield from describe_checkpoint(folder, of=cfg)
  for info in sorted(path.rglob("run.json")):
    yield from describe_results(info.parent)


def describe_config(cfg: Config) -> Iterator[str]:
  """Size, memory and length of training."""
  hsa, model = cfg.model.hsa, cfg.model
  yield f"  config       {config_hash(cfg)}, {cfg.num_steps:,} steps"
  yield f"  parameters   {count_parameters(model).total:,}"
  yield (
    f"  window       {model.window_size} keys in"
    f" {model.num_lower_layers} + {model.num_upper_layers} layers"
  )
  if model.layers:
    pattern = layers_of(model, 0, len(model.layers))
    names = [_layer_name(layer) for layer in pattern]
    yield f"  layers       {', '.join(names)}, and again"
  usual = (BlockForm.SEQUENTIAL, Norm.RMS, 1.0)
  if (model.block, model.norm, model.logit_scale) != usual:
    yield (
      f"  block        {model.block}, norm {model.norm}, logits times"
      f" {model.logit_scale:g}"
    )
  if hsa.num_groups:
    yield (
      f"  memory       {hsa.num_groups} group(s), chunks of {hsa.chunk_size},"
      f" top {hsa.top_k}, landmark {hsa.landmark_dim}, {hsa.weighting}"
    )
  else:
    yield "  memory       none"


def _layer_name(layer: Layer) -> str:
  """Its mixer, with what positions mean to it, and a missing MLP."""
  name = str(layer.mixer)
  if layer.mixer not in RECURRENT:
    name += f" ({layer.cfg.position})"
  return name if layer.mlp is Mlp.GATED else f"{name} without MLP"


def describe_checkpoint(
  folder: pathlib.Path, of: Config | None = None
) -> Iterator[str]:
  """What a checkpoint says of itself; its configuration unless it is `of`."""
  cfg, meta = checkpoint.read_metadata(folder)
  yield f"  checkpoint   step {meta.step:,}, {meta.tokens_seen:,} tokens seen"
  yield f"    tokenizer  {meta.tokenizer} {meta.tokenizer_fingerprint}"
  arrays = sum(len(item) for item in meta.digests.values())
  yield f"    arrays     {arrays}, each with a SHA-256"
  libraries = ", ".join(f"{k} {v}" for k, v in meta.versions.items())
  yield f"    saved by   {libraries}"
  if cfg != of:
    yield from describe_config(cfg)


def describe_results(path: pathlib.Path) -> Iterator[str]:
  """Scores in a results folder."""
  info = results.read_info(path)
  yield f"  evaluation   {path}: {info.label}, step {info.step:,}"
  rows = results.read_lines(path / "results.jsonl")
  for row in results.latest_results(rows):
    yield (
      f"    {row['suite']}/{row['task']} {row['haystack']} {row['length']:,}:"
      f" {row['metric']} {row['score']:.3f}"
      f" [{row['ci_low']:.3f}, {row['ci_high']:.3f}]"
      f" of {row['num_samples']}"
    )


def _last_metrics(path: pathlib.Path) -> Iterator[str]:
  """The newest value of every metric; some are written at some steps only."""
  newest: dict[str, tuple[int, Any]] = {}
  for record in read_metrics(path):
    step = record["step"]
    newest |= {k: (step, v) for k, v in record.items() if "/" in k}
  for name, (step, value) in sorted(newest.items()):
    text = "null" if value is None else f"{value:.6g}"
    yield f"  {name:28} {text} (step {step:,})"


if __name__ == "__main__":
  sys.exit(main())
