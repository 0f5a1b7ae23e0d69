"""Runs tasks of lm-evaluation-harness on a checkpoint.

    python -m hsa_jax.cli.lm_eval --checkpoint=runs/quickstart
      --tasks=my_task --include-path=tasks/ --out=runs/quickstart/lm_eval
    python -m hsa_jax.cli.lm_eval --checkpoint=runs/a
      --tasks=hellaswag,lambada_openai --limit=200 --out=runs/a/lm_eval

Needs the extra `lm-eval`. Tasks in --include-path are found first; the tasks
that come with the harness fetch their data over the network, local ones read
files. A context may be of any length: it goes through the chunk memory.

Writes into --out: results.json, samples_TASK.jsonl, and the answers so far, so
that the same command goes on after a crash or a Ctrl-C. A folder belongs to
one checkpoint.

Exit codes: 0 finished, 2 something to correct in the input, 130 stopped.
"""

import argparse
import difflib
import json
import os
import pathlib
import sys
import tempfile
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

from absl import logging

from hsa_jax import parallel
from hsa_jax.cli.checkpoint_flag import open_tokenizer
from hsa_jax.cli.faults import exit_code
from hsa_jax.cli.flags import Parser, as_flag_errors, whole_chunks
from hsa_jax.cli.memory_flags import MemoryChoice, add_memory_flags, read_memory
from hsa_jax.config import Config, ConfigError, config_hash
from hsa_jax.data.errors import DataError
from hsa_jax.data.tokenizer import Tokenizer
from hsa_jax.evaluation.lengths import FlagError
from hsa_jax.interop import (
  HarnessModel,
  MissingHarnessError,
  Reader,
  RequestError,
  Ways,
  import_harness,
  make_lm,
)
from hsa_jax.interop.reader import HOMES
from hsa_jax.memory import MemoryHomeError
from hsa_jax.training.checkpoint import (
  CheckpointError,
  CheckpointMeta,
  find_checkpoint,
  load_model,
  read_metadata,
)

INPUT_ERRORS = (
  FlagError,
  CheckpointError,
  ConfigError,
  DataError,
  MemoryHomeError,
  MissingHarnessError,
  RequestError,
)
RUN, RESULTS, ANSWERS = "run.json", "results.json", "answers"


class Arguments(NamedTuple):
  """The command line, each value checked by itself."""

  checkpoint: str
  step: int | None
  tasks: tuple[str, ...]
  include_path: str | None
  out: pathlib.Path
  num_fewshot: int | None
  limit: int | None
  seed: int
  ways: Ways


class Subject(NamedTuple):
  """What is evaluated, before anything is on a device."""

  folder: pathlib.Path
  cfg: Config
  meta: CheckpointMeta
  tokenizer: Tokenizer


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return exit_code(
    lambda: print(run(read_arguments(_parser().parse_args(argv)))),
    input_errors=INPUT_ERRORS,
    stopped="stopped; the same command goes on",
    if_out_of_memory="use --memory=disk, a smaller --segment or a smaller"
    " --batch; finished samples are kept",
  )


def run(arguments: Arguments) -> str:
  """Evaluates, writes the files; returns the table of the harness."""
  logging.set_verbosity(logging.ERROR)  # Orbax warns of what it does not use.
  # Its bootstrap would fork a process with JAX in it.
  os.environ.setdefault("DISABLE_MULTIPROC", "1")
  subject = find_subject(arguments)
  harness = import_harness()
  tasks = find_tasks(arguments)
  claim_folder(arguments, subject)
  parallel.enable_compilation_cache()
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Others' libraries, not ours to change.
    results = harness.simple_evaluate(
      model=make_lm(_open_model(arguments, subject)),
      tasks=list(arguments.tasks),
      task_manager=tasks,
      num_fewshot=arguments.num_fewshot,
      limit=arguments.limit,
      use_cache=str(arguments.out / ANSWERS),
    )
  write_results(arguments.out, results)
  table = import_harness("lm_eval.utils").make_table(results)
  return f"{table}\nresults: {arguments.out / RESULTS}"


def find_subject(arguments: Arguments) -> Subject:
  """Checkpoint and tokenizer that belong together; touches no device.

  Raises:
    FlagError, CheckpointError, DataError: one message.
  """
  folder = find_checkpoint(arguments.checkpoint, step=arguments.step)
  cfg, meta = read_metadata(folder)
  whole_chunks(arguments.ways.segment, cfg.model, Ways().segment)
  return Subject(folder, cfg, meta, open_tokenizer(folder, cfg, meta))


def find_tasks(arguments: Arguments) -> Any:
  """The harness's task manager, once it has loaded every task asked for.

  Raises:
    FlagError: a name that it does not know, or a task that cannot be loaded.
  """
  kind = import_harness("lm_eval.tasks").TaskManager
  path = arguments.include_path
  manager = kind(include_path=path, include_defaults=False)
  if unknown_tasks(arguments.tasks, manager.all_tasks):
    manager = kind(include_path=path)
  problems = unknown_tasks(arguments.tasks, manager.all_tasks)
  if problems:
    raise FlagError(problems)
  for task in arguments.tasks:
    try:
      manager.load([task])
    except Exception as error:  # a task is anyone's code
      first = (str(error).splitlines() or [""])[0]
      raise FlagError(
        [
          f"--tasks={task}: cannot be loaded ({type(error).__name__}: {first});"
          " data that is not local comes over the network"
        ]
      ) from error
  return manager


def unknown_tasks(names: Sequence[str], known: Sequence[str]) -> list[str]:
  """One line for each name that is no task, with the nearest that is."""
  problems = []
  for name in names:
    if name not in known:
      close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
      hint = f"; did you mean {close[0]!r}?" if close else ""
      problems.append(
        f"--tasks: the harness has no task {name!r}{hint}; a task of your own"
        " is a YAML file in --include-path=DIR"
      )
  return problems


def claim_folder(arguments: Arguments, subject: Subject) -> None:
  """Makes --out, and refuses one with answers of another model.

  Raises:
    FlagError: naming what differs, or why it cannot be written.
  """
  path, wanted = arguments.out / RUN, _identity(arguments, subject)
  try:
    arguments.out.mkdir(parents=True, exist_ok=True)
    if path.exists():
      held = dict(json.loads(path.read_text(encoding="utf-8")))
      differs = [k for k in wanted if held.get(k) != wanted[k]]
      if differs:
        k = differs[0]
        raise FlagError(
          [
            f"--out={arguments.out}: holds answers of {k} {held.get(k)!r}, this"
            f" is {wanted[k]!r}; choose another folder"
          ]
        )
    path.write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8")
  except OSError as error:
    raise FlagError([f"--out={arguments.out}: {error.strerror}"]) from error
  except (TypeError, json.JSONDecodeError) as error:
    raise FlagError(
      [f"{path}: not of this program ({error}); choose another --out"]
    ) from error


def write_results(folder: pathlib.Path, results: dict[str, Any]) -> None:
  """results.json, and one line per document in samples_TASK.jsonl."""
  plain = import_harness("lm_eval.utils").handle_non_serializable
  samples = results.pop("samples", {})
  for task, rows in samples.items():
    lines = [json.dumps(row, default=plain) + "\n" for row in rows]
    name = f"samples_{task.replace('/', '_')}.jsonl"
    (folder / name).write_text("".join(lines), encoding="utf-8")
  text = json.dumps(results, indent=1, default=plain)
  (folder / RESULTS).write_text(text + "\n", encoding="utf-8")


def read_arguments(values: argparse.Namespace) -> Arguments:
  """Checks every flag by itself.

  Raises:
    FlagError: naming all that is wrong, one line each.
  """
  problems = [
    f"--{name} is missing: {what}"
    for name, what in (
      ("checkpoint", "the --workdir of a training run"),
      ("tasks", "names of the harness, separated by commas"),
      ("out", "the folder for results"),
    )
    if not vars(values)[name]
  ]
  for name, least in (("segment", 1), ("batch", 1), ("seed", 0)):
    if vars(values)[name] < least:
      problems.append(f"--{name}={vars(values)[name]}: must be >= {least}")
  for name, least in (("limit", 1), ("num_fewshot", 0)):
    value = vars(values)[name]
    if value is not None and value < least:
      flag = name.replace("_", "-")
      problems.append(f"--{flag}={value}: must be at least {least}")
  memory = MemoryChoice()
  try:
    memory = read_memory(values, HOMES)
  except FlagError as error:
    problems += error.problems
  folder = values.memory_folder or tempfile.gettempdir()
  for flag, path in (
    ("memory-folder", folder),
    ("include-path", values.include_path or "."),
  ):
    if not pathlib.Path(path).is_dir():
      problems.append(f"--{flag}={path}: no such folder")
  if problems:
    raise FlagError(problems)
  names = dict.fromkeys(part.strip() for part in values.tasks.split(","))
  return Arguments(
    values.checkpoint,
    values.step,
    tuple(name for name in names if name),
    values.include_path,
    pathlib.Path(values.out),
    values.num_fewshot,
    values.limit,
    values.seed,
    Ways(values.segment, values.batch, memory.home, memory.kv_dtype, folder),
  )


def _open_model(arguments: Arguments, subject: Subject) -> HarnessModel:
  model, _, _ = load_model(subject.folder)
  with as_flag_errors():
    segment = whole_chunks(arguments.ways.segment, model.cfg, Ways().segment)
    reader = Reader(model, arguments.ways._replace(segment=segment))
    reader.plan(segment)  # Whether home and type go together.
  return HarnessModel(
    reader,
    subject.tokenizer,
    info=_identity(arguments, subject),
    seed=arguments.seed,
  )


def _identity(arguments: Arguments, subject: Subject) -> dict[str, Any]:
  """All that an answer depends on, beside the request."""
  return {
    "run": subject.folder.parent.parent.name,
    "step": subject.meta.step,
    "config_hash": config_hash(subject.cfg),
    "tokenizer": subject.tokenizer.fingerprint,
    "kv_dtype": str(arguments.ways.kv_dtype),
    "seed": arguments.seed,
  }


def _parser() -> Parser:
  parser = Parser(
    prog="python -m hsa_jax.cli.lm_eval",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  add("--checkpoint", help="workdir of a training run, or one step's folder")
  add("--step", type=int, help="which checkpoint; default: the newest")
  add("--tasks", help="names, separated by commas")
  add("--include-path", metavar="DIR", help="YAML files of your own tasks")
  add("--out", metavar="DIR", help="where results go")
  add("--num-fewshot", type=int, help="examples; default: what the task says")
  add("--limit", type=int, help="documents per task; default: all")
  add("--seed", type=int, default=0, help="of drawn texts; default: 0")
  add("--segment", type=int, default=Ways().segment, help="tokens per call")
  add("--batch", type=int, default=Ways().batch, help="short texts per call")
  add_memory_flags(
    parser,
    homes="host (RAM), disk (in --memory-folder; least RAM), device, auto (the"
    " first of device, host, disk that fits)",
  )
  add("--memory-folder", metavar="DIR", help="of --memory=disk; default: temp")
  return parser


if __name__ == "__main__":
  sys.exit(main())
