"""Trains a language model with hierarchical sparse attention.

    python train.py --config=configs/quickstart.py --workdir=runs/quickstart

Run the same command again to resume: after a crash, a kill, a Ctrl-C. The run
continues from the newest checkpoint in --workdir, to the same bits.

  --config=FILE    Python file with get_config(); see configs/
  --config.A.B=V   override one field, for example
                     --config.optimizer.learning_rate=3e-4
                     --config.model.hsa.top_k=8
                     --config.train.checkpoint_every=100
  --workdir=DIR    receives config.json, metrics.jsonl, tensorboard/,
                   checkpoints/, and where asked or needed profile/,
                   bad_batches/ and checkpoints_damaged/; it belongs to one
                   configuration. docs/training.md says what is in them
  --check          validate everything; print parameters, FLOPs per token,
                   memory and where each parameter lives; train nothing
  --help           this text

Watch:    tensorboard --logdir=DIR     or read DIR/metrics.jsonl
Evaluate: python eval.py --checkpoint=DIR

Several processes: launch/ has a script for TPU pods, SLURM and GKE; all end
in this command, and docs/launching.md says what to do when it does not start.

On a CPU each core is a device, as far as the batch divides; JAX_NUM_CPU_DEVICES
overrides. Compiled programs are kept in ~/.cache/hsa_jax
(JAX_COMPILATION_CACHE_DIR).
Exit codes: 0 finished, 1 diverged, 2 something to correct in the input, 130 and
143 stopped by Ctrl-C or SIGTERM after saving (the same command goes on).
"""

import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

import jax
from absl import flags, logging

from hsa_jax import parallel
from hsa_jax.cli import config_flag
from hsa_jax.config import (
  Config,
  ConfigError,
  config_hash,
  fits_devices,
  validate,
)
from hsa_jax.data.errors import DataError
from hsa_jax.data.pipeline import question_lengths
from hsa_jax.data.tokenizer import load_tokenizer
from hsa_jax.training import loop, report
from hsa_jax.training.checkpoint import CheckpointError
from hsa_jax.training.stop import Interrupted
from hsa_jax.training.watch import Diverged
from hsa_jax.training.workdir import WorkdirError, check_workdir

INPUT_ERRORS = (
  config_flag.UsageError,
  ConfigError,
  DataError,
  WorkdirError,
  CheckpointError,
  parallel.StartError,
)


class Arguments(NamedTuple):
  """The command line."""

  cfg: Config
  workdir: str
  check: bool


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  argv = list(sys.argv if argv is None else argv)
  if {"--help", "-h", "-help", "--helpfull"} & set(argv):
    print((__doc__ or "").strip())
    return 0
  try:
    arguments = read_arguments(argv)
    return check(arguments) if arguments.check else run(arguments)
  except INPUT_ERRORS as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  except Diverged as error:
    print(f"error: {error}", file=sys.stderr)
    return 1
  except Interrupted as stop:
    print(stop, file=sys.stderr)
    return 128 + stop.signal_number


def read_arguments(argv: Sequence[str]) -> Arguments:
  """Parses and validates everything that needs no device.

  Raises:
    UsageError, ConfigError, DataError, WorkdirError: one message each.
  """
  values = config_flag.parse(argv, _define_flags)
  cfg = config_flag.read_config(values)
  workdir, checking = values["workdir"].value, bool(values["check"].value)
  if not workdir and not checking:
    raise config_flag.UsageError(
      "--workdir=DIR is missing, as in --workdir=runs/a"
    )
  where = config_flag.source_name(values)
  validate(cfg, where=where)
  tokenizer = load_tokenizer(cfg.data.tokenizer)
  validate(
    cfg,
    min_question_len=question_lengths(cfg, tokenizer),
    tokenizer_vocab_size=tokenizer.vocab_size,
    where=where,
  )
  if workdir:
    check_workdir(workdir, cfg)
  return Arguments(cfg, workdir or "", checking)


def _define_flags(values: flags.FlagValues) -> None:
  flags.DEFINE_string("workdir", None, "folder of the run", flag_values=values)
  flags.DEFINE_bool("check", False, "print the plan only", flag_values=values)


def run(arguments: Arguments) -> int:
  """Trains."""
  start_jax(arguments.cfg)
  parallel.check_shared(arguments.workdir)
  announce(arguments.cfg)
  loop.train(arguments.cfg, workdir=arguments.workdir)
  return 0


def check(arguments: Arguments) -> int:
  """Prints what the run would be."""
  start_jax(arguments.cfg)
  text = report.describe(arguments.cfg)
  if jax.process_index() == 0:
    print(text)
  return 0


def announce(cfg: Config) -> None:
  """On a pod, says once where every parameter lives; elsewhere see --check."""
  pod = jax.process_count() > 1 or jax.default_backend() != "cpu"
  if pod and jax.process_index() == 0:
    print(report.placement(cfg), file=sys.stderr, flush=True)


def start_jax(cfg: Config) -> None:
  """Joins the job's processes, then checks the mesh against the devices."""
  logging.set_verbosity(logging.ERROR)  # Orbax warns of what it does not use.
  parallel.enable_compilation_cache()
  launch = parallel.read_launch(os.environ)
  if launch.cluster is parallel.Cluster.ALONE:
    parallel.prepare_host(lambda count: fits_devices(cfg, count))
  parallel.start(launch, facts={"configuration": config_hash(cfg)})
  validate(cfg, num_devices=jax.device_count())


if __name__ == "__main__":
  sys.exit(main())
