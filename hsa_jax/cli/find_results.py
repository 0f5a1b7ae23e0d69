"""Prints the first results folder that may stand beside a run.

    python -m hsa_jax.cli.find_results --config=configs/quickstart_swa.py
        --beside=runs/quickstart/eval runs/quickstart_swa/eval
        benchmarks/results/quickstart_swa

A folder qualifies if its results are of this very configuration, measured on
the same text with the same tokenizer and seed, at every point at which the run
was measured. So stored results are used while they are true, and not a day
longer. Exit code 0 with the folder, 1 without, 2 for bad input.
"""

import argparse
import importlib.util
import pathlib
import sys
from collections.abc import Sequence

from hsa_jax.config import ConfigError, config_hash, from_dict
from hsa_jax.evaluation.results import ResultsError, key_of
from hsa_jax.evaluation.runs import Run, load_run

SAME = ("tokenizer", "store", "seed")


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  flags = _parser().parse_args(argv)
  try:
    wanted = _hash_of(flags.config)
    run = load_run(flags.beside)
  except (ConfigError, ResultsError, OSError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  for folder in flags.folders:
    problem = mismatch(folder, wanted, run)
    if not problem:
      print(folder)
      return 0
    print(f"{folder}: {problem}", file=sys.stderr)
  return 1


def mismatch(folder: str, config: str, run: Run) -> str:
  """Why the results in `folder` do not fit; empty if they do.

  Args:
    folder: candidate.
    config: hash of the configuration its results must be of.
    run: what they will stand beside.
  """
  try:
    other = load_run(folder)
  except ResultsError as error:
    return str(error)
  if other.info.config_hash != config:
    return f"of configuration {other.info.config_hash}, not {config}"
  for name in SAME:
    ours, theirs = run.info._asdict()[name], other.info._asdict()[name]
    if ours != theirs:
      return f"measured with {name} {theirs}, the run with {ours}"
  missing = {*map(key_of, run.results)} - {*map(key_of, other.results)}
  return f"{len(missing)} points not measured" if missing else ""


def _hash_of(path: str) -> str:
  spec = importlib.util.spec_from_file_location("config_file", path)
  if spec is None or spec.loader is None or not pathlib.Path(path).exists():
    raise FileNotFoundError(2, f"--config={path}: no such Python file")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return config_hash(from_dict(module.get_config(), where=path))


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--config", required=True, help="file in configs/")
  parser.add_argument("--beside", required=True, help="results folder")
  parser.add_argument("folders", nargs="+", help="candidates, best first")
  return parser


if __name__ == "__main__":
  sys.exit(main())
