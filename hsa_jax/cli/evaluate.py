"""Evaluates a checkpoint at any context length.

    python eval.py --checkpoint=runs/quickstart --suites=hsa_ruler,ppl
      --lengths=256,4K,64K,1M --samples=20,256K:10
    python eval.py --report runs/quickstart/eval runs/quickstart_swa/eval
      --out=runs/comparison
    python eval.py --compare runs/a/eval runs/b/eval --out=runs/a_against_b

Run the same command again after a crash, a kill or a Ctrl-C: samples that are
finished are not computed again, and with --memory=disk the one that was being
read goes on where it was. Writes into --workdir: results.jsonl and
predictions.jsonl, then report.md, report.html, CSV and plots made from these
two alone. --report remakes them, for one run in its folder, for several side
by side in --out. --compare pairs two runs sample by sample and tests whether
they differ.

Exit codes: 0 finished, 2 something to correct (a flag, a full disk, too little
memory; finished samples are kept), 130 stopped.
"""

import argparse
import dataclasses
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

import jax
from absl import logging
from jax.sharding import Mesh

from hsa_jax import parallel
from hsa_jax.cli.checkpoint_flag import open_tokenizer
from hsa_jax.cli.evaluate_flags import (
  DEFAULT_SEGMENT,
  Arguments,
  make_parser,
  read_arguments,
)
from hsa_jax.cli.faults import exit_code
from hsa_jax.cli.flags import as_flag_errors, whole_chunks
from hsa_jax.cli.override_flag import overridden
from hsa_jax.config import (
  Config,
  ConfigError,
  ModelConfig,
  config_hash,
  lower_layers,
)
from hsa_jax.data.build import ensure_store
from hsa_jax.data.errors import DataError
from hsa_jax.data.store import TokenStore
from hsa_jax.data.tokenizer import Tokenizer
from hsa_jax.evaluation import (
  SUITES,
  Asked,
  FlagError,
  Job,
  ResultsError,
  ResultStore,
  RunInfo,
  Session,
  Settings,
  Suite,
  receptive_field,
  write_comparison,
  write_paired,
  write_report,
)
from hsa_jax.evaluation.progress import Progress
from hsa_jax.evaluation.results import check_writable, read_info
from hsa_jax.evaluation.room import make_devices, plan_room
from hsa_jax.evaluation.session import PrefillKind
from hsa_jax.evaluation.suite import check_all, select_suites
from hsa_jax.memory import Home, MemoryHomeError, Plan
from hsa_jax.models import LanguageModel
from hsa_jax.models.mixers import reach_of
from hsa_jax.training.checkpoint import (
  CheckpointError,
  CheckpointMeta,
  find_checkpoint,
  load_model,
  read_metadata,
)

INPUT_ERRORS = (
  FlagError,
  ResultsError,
  CheckpointError,
  ConfigError,
  DataError,
  MemoryHomeError,
  parallel.StartError,
)


class Subject(NamedTuple):
  """What is evaluated and how, before anything is on a device."""

  folder: pathlib.Path
  cfg: Config
  meta: CheckpointMeta
  tokenizer: Tokenizer
  store: TokenStore
  suites: tuple[Suite, ...]
  jobs: list[Job]


def main(argv: Sequence[str]) -> int:
  """Runs the command; returns its exit code."""

  def command() -> None:
    values = make_parser(__doc__).parse_args(argv)
    if values.report is not None or values.compare is not None:
      show(values)
    else:
      evaluate(read_arguments(values))

  return exit_code(
    command,
    input_errors=INPUT_ERRORS,
    stopped="stopped; finished samples are kept: run the same command to go on",
    if_out_of_memory="use --memory=disk, a smaller --segment or a smaller"
    " --batch; finished samples are kept",
  )


def evaluate(arguments: Arguments) -> pathlib.Path:
  """Measures everything asked for; returns the path of the report."""
  logging.set_verbosity(logging.ERROR)  # Orbax warns of what it does not use.
  # Before a checkpoint is opened, which starts JAX.
  parallel.require_alone(os.environ, "eval.py")
  parallel.prepare_host(lambda count: _spreads(arguments.settings))
  subject = find_subject(arguments)
  check_writable(arguments.workdir)
  settings = _decided(arguments.settings, subject.cfg.model)
  arguments = arguments._replace(settings=settings)
  mesh = make_devices(arguments.settings)
  print(_plan(arguments, subject, mesh), file=sys.stderr)
  if mesh is not None:
    print(f"devices: {mesh.size} {jax.default_backend()}", file=sys.stderr)
  parallel.enable_compilation_cache()
  session = _open_session(arguments, subject, mesh)
  by_name = {suite.name: suite for suite in subject.suites}
  with _progress(session, subject.jobs) as progress:
    for job in subject.jobs:
      suite = by_name[job.suite]
      progress.message(suite.describe(suite.run(session, job)))
  report = write_report(arguments.workdir)
  print(f"report: {report}")
  return report


def _spreads(settings: Settings) -> bool:
  """Whether all cores of a CPU should read, each a segment of its own."""
  if settings.prefill is not PrefillKind.AUTO:
    return settings.prefill is PrefillKind.HALO
  return settings.memory not in (Home.DEVICE, Home.AUTO)


def _decided(settings: Settings, model: ModelConfig) -> Settings:
  """The settings with `--prefill=auto` and the default segment decided."""
  segment = whole_chunks(settings.segment, model, DEFAULT_SEGMENT)
  settings = dataclasses.replace(settings, segment=segment)
  if settings.prefill is not PrefillKind.AUTO:
    return settings
  several = jax.device_count() > 1 and settings.memory is not Home.DEVICE
  apart = several and reach_of(lower_layers(model)) is not None
  kind = PrefillKind.HALO if apart else PrefillKind.SEQUENTIAL
  return dataclasses.replace(settings, prefill=kind)


def _plan(arguments: Arguments, subject: Subject, mesh: Mesh | None) -> Plan:
  """What the longest context takes, before anything is computed."""
  settings = arguments.settings
  folder = pathlib.Path(arguments.workdir)
  longest = max(settings.lengths)
  with as_flag_errors():
    return plan_room(settings, subject.cfg.model, longest, folder, mesh)


def show(values: argparse.Namespace) -> None:
  """Makes and prints reports of results folders; evaluates nothing."""
  if values.report is not None and values.compare is not None:
    raise FlagError(["--report and --compare: give one of them at a time"])
  if values.compare is not None:
    if values.out:
      check_writable(values.out, flag="--out")
    first, second = values.compare
    print(write_paired(first, second, values.out or None))
    if values.out:
      print(f"report: {pathlib.Path(values.out) / 'compare.md'}")
    return
  path = _remake(values.report or [], values.out)
  print(path.read_text(encoding="utf-8"))
  print(f"report: {path}")


def _remake(folders: Sequence[str], out: str | None) -> pathlib.Path:
  """The report of one run in its folder, or of any number in `out`."""
  if out:
    check_writable(out, flag="--out")
    return write_comparison(folders, out)
  if len(folders) > 1:
    raise FlagError(["--out=DIR is missing: where the comparison goes"])
  read_info(folders[0])  # a folder that is none must not be made
  check_writable(folders[0], flag="--report")
  return write_report(folders[0])


def find_subject(arguments: Arguments) -> Subject:
  """Checkpoint, tokenizer and data that belong together, and the jobs.

  Touches no device.

  Raises:
    FlagError, CheckpointError, DataError: one message.
  """
  folder = find_checkpoint(arguments.checkpoint, step=arguments.step)
  cfg, meta = read_metadata(folder)
  cfg = overridden(cfg, arguments.overrides)
  _check_reading(arguments.settings, cfg.model)
  tokenizer = open_tokenizer(folder, cfg, meta)
  store = ensure_store(cfg.data)
  suites = select_suites(SUITES, arguments.suites)
  asked = Asked(arguments.settings, tokenizer, store, cfg)
  check_all(suites, asked)
  jobs = [job for suite in suites for job in suite.jobs(asked)]
  return Subject(folder, cfg, meta, tokenizer, store, suites, jobs)


def _open_session(
  arguments: Arguments, subject: Subject, mesh: Mesh | None
) -> Session:
  cfg = subject.cfg
  model, _, _ = load_model(
    subject.folder, build=lambda rngs: LanguageModel(cfg.model, rngs=rngs)
  )
  count = sum(leaf.size for leaf in jax.tree.leaves(model))
  info = RunInfo(
    label=_label(subject.folder),
    checkpoint=arguments.checkpoint,
    step=subject.meta.step,
    config_hash=config_hash(cfg),
    tokenizer=subject.tokenizer.fingerprint,
    store=subject.store.index["sha256"],
    seed=arguments.settings.seed,
    train_length=max(stage.seq_len for stage in cfg.data.stages),
    num_parameters=count,
    receptive_field=receptive_field(cfg.model),
    kv_dtype=str(arguments.settings.kv_dtype),
    overrides=", ".join(f"{k}={v}" for k, v in arguments.overrides.items()),
  )
  results = ResultStore(arguments.workdir, info)
  return Session(
    model,
    cfg,
    subject.tokenizer,
    subject.store,
    arguments.settings,
    results,
    mesh=mesh,
  )


def _progress(session: Session, jobs: Sequence[Job]) -> Progress:
  """Counts what the files do not hold yet, and compiles if there is any."""
  pending = [(job, len(session.pending(job))) for job in jobs]
  field = receptive_field(session.cfg.model)
  tokens = sum(
    count * (job.length if field is None else min(job.length, field + 16))
    for job, count in pending
  )
  session.progress = Progress(
    total_tokens=tokens, total_samples=sum(count for _, count in pending)
  )
  if tokens:
    session.progress.message("compiling the prefill program")
    for length in {job.length for job, count in pending if count}:
      session.prefill.warm_up(length)
    session.progress.restart()
  return session.progress


def _check_reading(settings: Settings, model: ModelConfig) -> None:
  """Raises `FlagError` for ways of reading that the model does not allow."""
  whole = reach_of(lower_layers(model)) is None
  if whole and settings.prefill is PrefillKind.HALO:
    raise FlagError(
      [
        "--prefill=halo: a layer of this model sees the whole context, so its"
        " segments cannot be read side by side; use --prefill=sequential"
      ]
    )
  whole_chunks(settings.segment, model, DEFAULT_SEGMENT)


def _label(folder: pathlib.Path) -> str:
  """Name of the training run: `X` of `runs/X/checkpoints/500`."""
  return folder.parent.parent.name


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
