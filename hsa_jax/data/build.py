"""From the data part of a configuration to an opened token store."""

from pathlib import Path

from hsa_jax.config.fields import DataConfig
from hsa_jax.data import corpora
from hsa_jax.data.corpora import Corpus
from hsa_jax.data.errors import StoreError
from hsa_jax.data.index import INDEX, PROGRESS
from hsa_jax.data.progress import Progress, say
from hsa_jax.data.store import Existing, TokenStore, build_store
from hsa_jax.data.tokenizer import Tokenizer, load_tokenizer


def ensure_store(cfg: DataConfig) -> TokenStore:
  """Opens the token store of a configuration; makes it if it can.

  A built-in corpus is fetched and tokenized when the folder is missing; text
  of the user's own is never guessed.

  Raises:
    DataError: one line with the name of the thing and the fix.
  """
  tokenizer = load_tokenizer(cfg.tokenizer)
  if any((Path(cfg.store) / name).exists() for name in (INDEX, PROGRESS)):
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
  with Progress(total) as progress:
    return build_store(
      corpus, tokenizer, path, existing=existing, progress=progress.made
    )
