"""Evaluates a checkpoint at any context length; see --help."""

import sys

from hsa_jax.cli import evaluate

if __name__ == "__main__":
  sys.exit(evaluate.main(sys.argv[1:]))
