"""Learns a vocabulary from text, or says what one is.

    python -m hsa_jax.cli.tokenizer train --vocab=8000 --corpus=sotu
      --out=data/tokenizers/sotu-8k.json
    python -m hsa_jax.cli.tokenizer train --vocab=32000 --files='books/*.txt'
      --out=data/tokenizers/books-32k.json
    python -m hsa_jax.cli.tokenizer inspect --tokenizer=hf:data/t.json
      --corpus=sotu

`train` learns a byte-level BPE from the training split of a corpus; the works
that are held out for validation and evaluation are not read. The same text
gives the same file. An existing file with that content is kept, another one
only replaced with --replace. Use the result as data.tokenizer=hf:FILE.

`inspect` prints the size of the vocabulary, the special ids and the
fingerprint; with a corpus also the bytes per token on held-out text, and
whether that text survives encoding and decoding.

Exit codes: 0 finished, 2 something to correct in the input, 130 stopped.
"""

import argparse
import pathlib
import sys
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from hsa_jax.cli.faults import exit_code
from hsa_jax.cli.flags import Parser
from hsa_jax.data import corpora
from hsa_jax.data.build import say
from hsa_jax.data.corpora import Corpus
from hsa_jax.data.errors import DataError
from hsa_jax.data.tokenizer import Tokenizer, load_tokenizer
from hsa_jax.data.train_bpe import check_vocab, train_bpe
from hsa_jax.evaluation.lengths import FlagError

INPUT_ERRORS = (FlagError, DataError)


class HeldOut(NamedTuple):
  """What a tokenizer makes of text it did not learn from.

  Attributes:
    num_bytes: UTF-8 bytes of the text.
    num_tokens: ids, without any end of text.
    num_changed: documents that decode to something else.
  """

  num_bytes: int
  num_tokens: int
  num_changed: int


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""

  def command() -> None:
    values = make_parser().parse_args(argv)
    print(values.run(values))

  return exit_code(
    command,
    input_errors=INPUT_ERRORS,
    if_out_of_memory="learn from fewer --files",
  )


def train(values: argparse.Namespace) -> str:
  """Learns and writes a tokenizer; returns its description.

  Raises:
    FlagError, DataError: one message with the name of the thing and the fix.
  """
  if not values.out or not values.out.endswith(".json"):
    raise FlagError(
      [f"--out={values.out or ''}: name the file to write, ending in .json"]
    )
  check_vocab(values.vocab)
  corpus = _corpus(values)
  start = time.perf_counter()
  data = train_bpe(_progress(corpus, "train"), vocab_size=values.vocab)
  say(f"learned in {time.perf_counter() - start:.1f} s")
  _write(pathlib.Path(values.out), data, replace=values.replace)
  tokenizer = load_tokenizer(f"hf:{values.out}")
  if tokenizer.vocab_size < values.vocab:
    say(
      f"the text has pairs for {tokenizer.vocab_size} ids only, fewer than"
      f" --vocab={values.vocab}"
    )
  return describe(tokenizer, measure(tokenizer, corpus, values.split))


def inspect(values: argparse.Namespace) -> str:
  """Describes a tokenizer.

  Raises:
    FlagError, DataError: one message with the name of the thing and the fix.
  """
  tokenizer = load_tokenizer(values.tokenizer)
  held_out = None
  if values.corpus or values.files:
    held_out = measure(tokenizer, _corpus(values), values.split)
  return describe(tokenizer, held_out)


def measure(tokenizer: Tokenizer, corpus: Corpus, split: str) -> HeldOut:
  """Encodes and decodes every document of a split."""
  num_bytes = num_tokens = num_changed = 0
  for document in corpus.documents:
    if document.split == split:
      text = document.read()
      ids = tokenizer.encode(text)
      num_bytes += len(text.encode())
      num_tokens += len(ids)
      num_changed += tokenizer.decode(ids) != text
  return HeldOut(num_bytes, num_tokens, num_changed)


def describe(tokenizer: Tokenizer, held_out: HeldOut | None) -> str:
  """A line per fact."""
  lines = [
    f"tokenizer    {tokenizer.spec}",
    f"ids          {tokenizer.vocab_size}",
    f"end of text  {tokenizer.eos_id}",
    f"padding      {tokenizer.pad_id}",
    f"fingerprint  {tokenizer.fingerprint}",
  ]
  if held_out is not None and held_out.num_tokens:
    per_token = held_out.num_bytes / held_out.num_tokens
    changed = held_out.num_changed
    kept = "all of it" if not changed else f"not {changed} document(s)"
    lines += [
      f"held out     {held_out.num_bytes} bytes, {held_out.num_tokens} tokens:"
      f" {per_token:.4f} bytes per token",
      f"round trip   {kept}",
    ]
  return "\n".join(lines)


def make_parser() -> Parser:
  """Both subcommands, `run` set to the function of the one chosen."""
  parser = Parser(
    prog="python -m hsa_jax.cli.tokenizer",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  commands = parser.add_subparsers(required=True, metavar="{train,inspect}")
  one = commands.add_parser("train", allow_abbrev=False)
  one.set_defaults(run=train)
  one.add_argument("--vocab", type=int, required=True, help="ids in all")
  one.add_argument("--out", help="the file to write")
  one.add_argument("--replace", action="store_true", help="an existing file")
  _add_corpus(one)
  other = commands.add_parser("inspect", allow_abbrev=False)
  other.set_defaults(run=inspect)
  other.add_argument("--tokenizer", required=True, help="byte, or hf:FILE")
  _add_corpus(other)
  return parser


def _add_corpus(parser: argparse.ArgumentParser) -> None:
  add = parser.add_argument
  add("--corpus", help="sotu; or files, with --files")
  add("--files", action="append", default=[], help="paths or patterns")
  add("--valid-files", "--valid_files", action="append", default=[])
  add("--test-files", "--test_files", action="append", default=[])
  add("--archive", help="package file of a corpus, already downloaded")
  add(
    "--split",
    choices=corpora.SPLITS,
    default="test",
    help="what the bytes per token are measured on; default: test",
  )


def _corpus(values: argparse.Namespace) -> Corpus:
  name = values.corpus or (corpora.FILES if values.files else "")
  if not name:
    raise FlagError(["give --corpus=NAME, or --files='TEXTS/*.txt'"])
  if name in corpora.BUILT_IN and not values.archive:
    say(f"fetching corpus {name!r} from the package index")
  return corpora.documents(
    name,
    files=values.files,
    valid_files=values.valid_files,
    test_files=values.test_files,
    archive=pathlib.Path(values.archive) if values.archive else None,
  )


def _progress(corpus: Corpus, split: str) -> Iterator[str]:
  """Texts of a split, with a line of progress for every tenth of it."""
  mine = [d for d in corpus.documents if d.split == split]
  total, done = sum(d.num_bytes for d in mine), 0
  for document in mine:
    yield document.read()
    before, done = done, done + document.num_bytes
    if total and 10 * before // total != 10 * done // total:
      say(f"read {done / 1e6:.1f} of {total / 1e6:.1f} MB of {split} text")
  say("choosing the merges")


def _write(path: pathlib.Path, data: str, *, replace: bool) -> None:
  """All or nothing.

  Raises:
    FlagError: another file is there, or the folder cannot be written.
  """
  try:
    if path.exists():
      if path.is_file() and path.read_bytes() == data.encode():
        say(f"{path}: already there, the same content: kept")
        return
      if not replace or not path.is_file():
        raise FlagError(
          [
            f"--out={path}: holds something else, and stores and checkpoints"
            " may depend on it; choose another name, or pass --replace"
          ]
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(data, encoding="utf-8")
    temporary.replace(path)
  except OSError as error:
    raise FlagError([f"--out={path}: {error.strerror}"]) from error


if __name__ == "__main__":
  sys.exit(main())
