"""Continues a prompt of any length with the model of a checkpoint.

    python -m hsa_jax.cli.generate --checkpoint=runs/quickstart
      --prompt="The state of the union is" --max-tokens=200
    python -m hsa_jax.cli.generate --checkpoint=runs/quickstart
      --prompt-file=book.txt --temperature=0.8 --top-p=0.95 --seed=1
    cat book.txt question.txt | python -m hsa_jax.cli.generate
      --checkpoint=runs/quickstart --prompt-file=- --max-tokens=16

The prompt is read once, segment by segment, into a chunk memory (--memory) on
the device, in host RAM or on disk: a million tokens are as welcome as ten. Then
every token costs the same, but for the search over the landmarks of all chunks.
The most likely token is taken (--temperature=0) or one is drawn; the same flags
give the same text, wherever the chunks live.

Only the continuation goes to stdout, as it arrives; the room for the chunks,
which is checked first, and the speed go to stderr. A prompt is taken as it is:
a final newline in a file is part of it.

Exit codes: 0 finished, 2 something to correct in the input, 130 stopped.
"""

import argparse
import os
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
import tqdm
from absl import logging

from hsa_jax import parallel
from hsa_jax.cli.checkpoint_flag import open_tokenizer
from hsa_jax.cli.faults import exit_code
from hsa_jax.cli.flags import Parser, as_flag_errors
from hsa_jax.cli.memory_flags import (
  MemoryChoice,
  add_memory_flags,
  read_memory,
)
from hsa_jax.config import ConfigError, MeshConfig, ModelConfig
from hsa_jax.data.errors import DataError
from hsa_jax.data.text_stream import TextStream
from hsa_jax.data.tokenizer import Tokenizer
from hsa_jax.evaluation.lengths import FlagError
from hsa_jax.inference import (
  Decoder,
  Prefill,
  Sampling,
  generate,
  plan_context,
  prefill_decoder,
)
from hsa_jax.memory import (
  ChunkMemory,
  Home,
  MemoryHomeError,
  Placement,
  Plan,
  available,
  check_placement,
  open_memory,
)
from hsa_jax.models import LanguageModel
from hsa_jax.training.checkpoint import (
  CheckpointError,
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
)
MAX_SEGMENT = 4096  # tokens; what two CPU cores keep in their caches


class Arguments(NamedTuple):
  """The command line, each value checked by itself."""

  checkpoint: str
  step: int | None
  prompt: str
  max_tokens: int
  sampling: Sampling
  stop_at_eos: bool
  stream: bool
  memory: MemoryChoice
  folder: str


class Speed(NamedTuple):
  """What was read and written, and the seconds it took."""

  prompt_tokens: int
  prefill_s: float
  first_token_s: float
  token_s: list[float]


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""

  def command() -> None:
    speed = run(read_arguments(_parser().parse_args(argv)))
    print(describe(speed), file=sys.stderr)

  try:
    advice = "use --memory=disk"
    return exit_code(
      command, input_errors=INPUT_ERRORS, if_out_of_memory=advice
    )
  except BrokenPipeError:  # The reader has seen enough, as `head` does.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def run(arguments: Arguments) -> Speed:
  """Reads the prompt, writes the continuation."""
  logging.set_verbosity(logging.ERROR)  # Orbax warns of what it does not use.
  folder = find_checkpoint(arguments.checkpoint, step=arguments.step)
  cfg, meta = read_metadata(folder)
  tokenizer = open_tokenizer(folder, cfg, meta)
  tokens = tokenizer.encode(arguments.prompt)[None]
  devices = make_devices(arguments.memory)
  plan = make_plan(arguments, cfg.model, tokens.shape[1], devices)
  print(plan, file=sys.stderr)
  parallel.enable_compilation_cache()
  model, _, _ = load_model(folder)
  if devices is not None:
    model = jax.device_put(model, parallel.replicated(devices.mesh))
  prefill = make_prefill(model, tokens.shape[1])
  prefill.warm_up(tokens.shape[1] + arguments.max_tokens)
  with open_memory(plan, arguments.folder, devices) as memory:
    start = time.perf_counter()
    decoder, prefill_s = read_prompt(prefill, tokens, memory, arguments)
    times = write_text(continuation(decoder, tokenizer, arguments), arguments)
  first, rest = times[0] - start, np.diff(times).tolist()
  return Speed(tokens.shape[1], prefill_s, first, rest)


def make_devices(choice: MemoryChoice) -> Placement | None:
  """All devices, if the chunks may be split over them.

  Raises:
    MemoryHomeError: if they lack the kind of memory asked for.
  """
  several = choice.home is Home.AUTO and jax.device_count() > 1
  if choice.home is not Home.SHARDED and not several:
    return None
  mesh = parallel.make_mesh(MeshConfig())
  placement = Placement(mesh, parallel.READ_AXIS, choice.kv_place)
  check_placement(placement)
  return placement


def make_plan(
  arguments: Arguments,
  model: ModelConfig,
  length: int,
  devices: Placement | None,
) -> Plan:
  """The home of the chunks of prompt and continuation, and what they take.

  Raises:
    FlagError: if the home cannot store the type asked for.
    MemoryHomeError: if the home asked for, or any, does not fit.
  """
  with as_flag_errors():
    return plan_context(
      model,
      length=length + arguments.max_tokens,
      batch=1,
      home=arguments.memory.home,
      free=available(arguments.folder),
      kv_dtype=arguments.memory.kv_dtype,
      shards=1 if devices is None else devices.num_shards,
      kv_place=arguments.memory.kv_place,
    )


def write_text(parts: Iterator[str], arguments: Arguments) -> list[float]:
  """Writes to stdout; returns when each part was there."""
  times = []
  for text in parts:
    times.append(time.perf_counter())
    sys.stdout.write(text)
    if arguments.stream:
      sys.stdout.flush()
  sys.stdout.write("\n")
  sys.stdout.flush()
  return times


def make_prefill(model: LanguageModel, length: int) -> Prefill:
  """The prefill program: short for a short prompt, in few distinct sizes."""
  chunk = model.cfg.hsa.chunk_size if model.cfg.hsa.num_groups else 1
  chunks = 1 << (-(-length // chunk) - 1).bit_length()
  most = max(MAX_SEGMENT // chunk, 1)
  return Prefill(model, batch=1, segment=min(chunks, most) * chunk)


def read_prompt(
  prefill: Prefill, tokens: np.ndarray, memory: ChunkMemory, args: Arguments
) -> tuple[Decoder, float]:
  """A decoder behind the prompt, and the seconds of the prefill alone."""
  length, start, seconds = tokens.shape[1], time.perf_counter(), 0.0
  # `disable=None`: a bar on a terminal only.
  with tqdm.tqdm(
    total=length, unit="tok", unit_scale=True, leave=False, disable=None
  ) as bar:

    def advance(count: int) -> None:
      nonlocal seconds
      seconds = time.perf_counter() - start
      bar.update(count)

    decoder = prefill_decoder(
      prefill,
      lambda begin, end: tokens[:, begin:end],
      memory,
      length=length,
      advance=advance,
      room=args.max_tokens,
    )
  return decoder, seconds


def continuation(
  decoder: Decoder, tokenizer: Tokenizer, arguments: Arguments
) -> Iterator[str]:
  """Text of one token after the other; may be empty inside a character."""
  stream = TextStream(tokenizer)
  for (token,) in generate(
    decoder,
    max_tokens=arguments.max_tokens,
    sampling=arguments.sampling,
    stop_token=tokenizer.eos_id if arguments.stop_at_eos else None,
    vocab_size=tokenizer.vocab_size,
  ):
    yield stream.add(token)
  rest = stream.finish()
  if rest:
    yield rest


def describe(speed: Speed) -> str:
  """One line: speed of reading, of writing, and the first wait."""
  text = (
    f"prefill {speed.prompt_tokens:,} tokens,"
    f" {speed.prompt_tokens / speed.prefill_s:,.0f} tokens/s;"
    f" first token after {speed.first_token_s:.2f} s"
  )
  if speed.token_s:
    median = 1000 * statistics.median(speed.token_s)
    text += f"; decode {median:.2f} ms/token (median)"
  return text


def read_arguments(values: argparse.Namespace) -> Arguments:
  """Checks every flag by itself.

  Raises:
    FlagError: naming all that is wrong, one line each.
  """
  problems = []
  if not values.checkpoint:
    problems.append("--checkpoint is missing: the --workdir of a training run")
  prompt = ""
  try:
    prompt = _prompt(values)
  except FlagError as error:
    problems += error.problems
  if values.max_tokens < 1:
    problems.append(f"--max-tokens={values.max_tokens}: must be at least 1")
  if not 0 <= values.temperature < float("inf"):
    problems.append(
      f"--temperature={values.temperature}: must not be negative; 0 takes the"
      " most likely token"
    )
  if values.top_k < 0:
    problems.append(f"--top-k={values.top_k}: must not be negative; 0 is off")
  if not 0 < values.top_p <= 1:
    problems.append(f"--top-p={values.top_p}: must lie in (0, 1]; 1 is off")
  if values.seed < 0:
    problems.append(f"--seed={values.seed}: must not be negative")
  memory = MemoryChoice()
  try:
    memory = read_memory(values)
  except FlagError as error:
    problems += error.problems
  folder = values.memory_folder or tempfile.gettempdir()
  if not pathlib.Path(folder).is_dir():
    problems.append(f"--memory-folder={folder}: no such folder")
  if problems:
    raise FlagError(problems)
  return Arguments(
    values.checkpoint,
    values.step,
    prompt,
    values.max_tokens,
    Sampling(values.temperature, values.top_k, values.top_p, values.seed),
    values.stop_at_eos,
    values.stream,
    memory,
    folder,
  )


def _prompt(values: argparse.Namespace) -> str:
  """The text of --prompt or --prompt-file; `-` is the standard input."""
  if (values.prompt is None) == (values.prompt_file is None):
    raise FlagError(["give either --prompt=TEXT or --prompt-file=FILE"])
  if values.prompt is not None:
    flag, text = "--prompt", values.prompt
  else:
    flag, name = f"--prompt-file={values.prompt_file}", values.prompt_file
    try:
      raw = (
        sys.stdin.buffer.read()
        if name == "-"
        else pathlib.Path(name).read_bytes()
      )
      text = raw.decode("utf-8")
    except OSError as error:
      raise FlagError([f"{flag}: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
      raise FlagError(
        [f"{flag}: byte {error.start} is not UTF-8; convert the file first"]
      ) from error
  if not text:
    raise FlagError([f"{flag}: is empty; a prompt has at least one token"])
  return text


def _parser() -> Parser:
  parser = Parser(
    prog="python -m hsa_jax.cli.generate",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add, choice = parser.add_argument, argparse.BooleanOptionalAction
  add("--checkpoint", help="workdir of a training run, or one step's folder")
  add("--step", type=int, help="which checkpoint; default: the newest")
  add("--prompt", help="the text to continue")
  add("--prompt-file", metavar="FILE", help="a UTF-8 file; - for stdin")
  add("--max-tokens", type=int, default=256, help="how many; default: 256")
  add(
    "--temperature",
    type=float,
    default=0.0,
    help="0 (default) takes the most likely token; 1 draws as the model says",
  )
  add("--top-k", type=int, default=0, help="draw from the k likeliest; 0: all")
  add(
    "--top-p", type=float, default=1.0, help="the fewest of this share; 1: all"
  )
  add("--seed", type=int, default=0, help="of the draws; default: 0")
  add(
    "--stop-at-eos",
    action=choice,
    default=True,
    help="end where the model ends the document (default)",
  )
  add(
    "--stream",
    action=choice,
    default=True,
    help="write each character when it is certain (default), or in blocks",
  )
  add_memory_flags(
    parser,
    homes="host (RAM), disk (in --memory-folder; least RAM), device, sharded"
    " (over all devices), auto (the first of device or sharded, host, disk that"
    " fits)",
  )
  add(
    "--memory-folder",
    metavar="DIR",
    help="for the file of --memory=disk, which is removed at the end;"
    " default: the system's temporary folder",
  )
  return parser


if __name__ == "__main__":
  sys.exit(main())
