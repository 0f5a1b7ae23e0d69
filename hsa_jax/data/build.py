"""From the data part of a configuration to an opened token store."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import tqdm

from hsa_jax.config.fields import DataConfig
from hsa_jax.data import corpora
from hsa_jax.data.corpora import Corpus
from hsa_jax.data.errors import StoreError
from hsa_jax.data.store import INDEX, Existing, TokenStore, build_store
from hsa_jax.data.tokenizer import Tokenizer, load_tokenizer


def ensure_store(cfg: DataConfig) -> TokenStore:
  """Opens the token store of a configuration; makes it if it can.

  A built-in corpus is fetched and tokenized when the folder is missing; text
  of the user's own is never guessed.

  Raises:
    DataError: one line with the name of the thing and the fix.
  """
  tokenizer = load_tokenizer(cfg.tokenizer)
  if (Path(cfg.store) / INDEX).is_file():
    store = TokenStore.open(cfg.store, tokenizer.fingerprint)
    check_corpus(store, cfg.corpus)
    return store
  if cfg.corpus == corpora.FILES:
    raise StoreError(
      f"data.store = {cfg.store!r}: no token store there; make it: python -m"
      " hsa_jax.cli.prepare --corpus=files --files='TEXTS/*.txt'"
      f" --tokenizer={cfg.tokenizer} --out={cfg.store}"
    )
  say(f"making the token store {cfg.store} from {cfg.corpus!r}")
  return make_store(corpora.documents(cfg.corpus), tokenizer, cfg.store)


def check_corpus(store: TokenStore, name: str) -> None:
  """Refuses a store of another corpus, or of another version of it."""
  corpus = store.index["corpus"]
  if corpus["name"] != name:
    raise StoreError(
      f"{store.path}: made from corpus {corpus['name']!r}, not {name!r}; set"
      f" data.corpus = {corpus['name']!r}, or data.store to another folder"
    )
  if name in corpora.BUILT_IN and (
    corpus["fingerprint"] != corpora.built_in_fingerprint(name)
  ):
    raise StoreError(
      f"{store.path}: made from another version of corpus {name!r}; delete the"
      " folder and run again"
    )


def make_store(
  corpus: Corpus,
  tokenizer: Tokenizer,
  path: str | Path,
  *,
  existing: Existing = Existing.REFUSE,
) -> TokenStore:
  """`build_store` with progress on standard error."""
  total = sum(d.num_bytes for d in corpus.documents)
  with _progress(total) as advance:
    return build_store(
      corpus, tokenizer, path, existing=existing, progress=advance
    )


def say(line: str) -> None:
  """One line of progress, on standard error."""
  print(line, file=sys.stderr, flush=True)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
  """A bar with the time left on a terminal, a line per tenth elsewhere."""
  if sys.stderr.isatty():
    with tqdm.tqdm(total=total, unit="B", unit_scale=True) as bar:
      bar.set_description("tokenizing")
      yield lambda num_bytes: _advance(bar, num_bytes)
    return
  done = 0

  def advance(num_bytes: int) -> None:
    nonlocal done
    before, done = done, done + num_bytes
    if total and 10 * before // total != 10 * done // total:
      say(f"tokenized {done / 1e6:.1f} of {total / 1e6:.1f} MB")

  yield advance


def _advance(bar: tqdm.tqdm, num_bytes: int) -> None:
  bar.update(num_bytes)
