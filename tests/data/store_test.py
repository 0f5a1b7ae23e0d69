import hashlib
import json
import pickle

import numpy as np
import pytest

from hsa_jax.config import DataConfig
from hsa_jax.data import corpora
from hsa_jax.data.build import ensure_store
from hsa_jax.data.errors import DataError, StoreError
from hsa_jax.data.store import Existing, TokenStore, build_store
from hsa_jax.data.tokenizer import ByteTokenizer, load_tokenizer

from .helpers import SIZES, make_corpus, make_store


def test_splits_hold_their_documents_and_nothing_else(tmp_path):
  store = make_store(tmp_path / "s")
  tokenizer = load_tokenizer("byte")
  for name in corpora.SPLITS:
    mine = [d for d in make_corpus().documents if d.split == name]
    expected = "".join(d.read() + "\0" for d in mine)
    ids = store.split(name)
    assert ids.dtype == np.uint16
    assert (ids == tokenizer.eos_id).sum() == len(mine)
    text = tokenizer.decode(np.where(ids == tokenizer.eos_id, 0, ids))
    assert text == expected
    assert store.num_tokens(name) == len(ids) == sum(SIZES[name]) + len(mine)
    ratio = sum(SIZES[name]) / len(ids)
    assert store.bytes_per_token(name) == pytest.approx(ratio)


def test_index_locates_every_document(tmp_path):
  store = make_store(tmp_path / "s")
  tokens = np.fromfile(tmp_path / "s" / "tokens.bin", "<u2")
  for entry, document in zip(
    store.index["documents"], make_corpus().documents, strict=True
  ):
    ids = tokens[entry["start"] : entry["start"] + entry["length"]]
    assert load_tokenizer("byte").decode(ids) == document.read()
    assert entry["title"] == document.title


def test_large_vocabulary_takes_four_bytes(tmp_path):
  tokenizer = ByteTokenizer()
  tokenizer.vocab_size, tokenizer.eos_id = 70_001, 70_000
  store = build_store(make_corpus(), tokenizer, tmp_path / "s")
  assert store.split("valid").dtype == np.uint32
  assert store.split("valid")[-1] == 70_000


def test_pickle_carries_no_tokens(tmp_path):
  store = make_store(tmp_path / "s")
  before = np.array(store.split("test"))
  data = pickle.dumps(store)
  assert len(data) < 5_000
  np.testing.assert_array_equal(pickle.loads(data).split("test"), before)


def test_tokens_are_read_only(tmp_path):
  with pytest.raises(ValueError, match="read-only"):
    make_store(tmp_path / "s").split("train")[0] = 1


def test_missing_store(tmp_path):
  with pytest.raises(StoreError, match=r"none: no token store.*cli\.prepare"):
    TokenStore.open(tmp_path / "none")


def test_other_tokenizer(tmp_path):
  make_store(tmp_path / "s")
  with pytest.raises(StoreError, match="made by tokenizer 'byte'"):
    TokenStore.open(tmp_path / "s", "0" * 64)


def _damage_truncate(folder):
  data = (folder / "tokens.bin").read_bytes()
  (folder / "tokens.bin").write_bytes(data[:-2])


def _damage_bit(folder):
  data = bytearray((folder / "tokens.bin").read_bytes())
  data[1234] ^= 1
  (folder / "tokens.bin").write_bytes(data)


def _damage_index(folder):
  text = (folder / "index.json").read_text()
  (folder / "index.json").write_text(text.replace('"start": 0', '"start": 9'))


def _damage_json(folder):
  text = (folder / "index.json").read_text()
  (folder / "index.json").write_text(text[:100])


def _damage_version(folder):
  index = json.loads((folder / "index.json").read_text())
  (folder / "index.json").write_text(json.dumps({**index, "version": 99}))


def _damage_gone(folder):
  (folder / "tokens.bin").unlink()


@pytest.mark.parametrize(
  ("damage", "message"),
  [
    (_damage_truncate, r"tokens\.bin: has .* truncated"),
    (_damage_bit, r"tokens\.bin: SHA-256 .* corrupt"),
    (_damage_gone, r"tokens\.bin: missing"),
    (_damage_index, r"index\.json: the index is corrupt"),
    (_damage_json, r"index\.json: not an index"),
    (_damage_version, r"index\.json: version 99"),
  ],
)
def test_damage_is_named_with_the_fix(tmp_path, damage, message):
  make_store(tmp_path / "s")
  damage(tmp_path / "s")
  with pytest.raises(StoreError, match=f"{message}.*make it again"):
    TokenStore.open(tmp_path / "s")


def test_existing_store_is_not_overwritten(tmp_path):
  make_store(tmp_path / "s", seed=0)
  before = (tmp_path / "s" / "tokens.bin").read_bytes()
  with pytest.raises(StoreError, match="already holds"):
    make_store(tmp_path / "s", seed=5)
  assert (tmp_path / "s" / "tokens.bin").read_bytes() == before


def test_replace_is_explicit(tmp_path):
  make_store(tmp_path / "s", seed=0)
  store = build_store(
    make_corpus(seed=5),
    load_tokenizer("byte"),
    tmp_path / "s",
    existing=Existing.REPLACE,
  )
  assert store.index["corpus"]["fingerprint"] == "seed 5"
  assert [p.name for p in tmp_path.iterdir()] == ["s"]


@pytest.mark.parametrize("existing", list(Existing))
def test_a_folder_of_something_else_is_never_touched(tmp_path, existing):
  folder = tmp_path / "thesis"
  folder.mkdir()
  (folder / "chapter.txt").write_text("years of work")
  with pytest.raises(StoreError, match="not a token store"):
    build_store(
      make_corpus(), load_tokenizer("byte"), folder, existing=existing
    )
  assert (folder / "chapter.txt").read_text() == "years of work"


def test_a_crash_leaves_nothing_behind(tmp_path):
  corpus = make_corpus()
  bad = corpus.documents[-1]._replace(read=lambda: 1 / 0)
  corpus = corpus._replace(documents=(*corpus.documents[:-1], bad))
  with pytest.raises(ZeroDivisionError):
    build_store(corpus, load_tokenizer("byte"), tmp_path / "s")
  assert not list(tmp_path.iterdir())


def test_another_process_made_the_same_store_meanwhile(tmp_path):
  corpus = make_corpus()
  last = corpus.documents[-1]

  def read():  # the other process finishes while this one still reads
    make_store(tmp_path / "s")
    return last.read()

  documents = (*corpus.documents[:-1], last._replace(read=read))
  mine = corpus._replace(documents=documents)
  store = build_store(mine, load_tokenizer("byte"), tmp_path / "s")
  assert store.num_tokens("valid") == sum(SIZES["valid"]) + 1


def test_unwritable_place(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(StoreError, match="cannot be written"):
    make_store(tmp_path / "file" / "s")


def test_ensure_opens_what_is_there(tmp_path):
  made = make_store(tmp_path / "s")
  cfg = DataConfig(corpus="files", store=str(tmp_path / "s"))
  assert ensure_store(cfg).index == made.index


def test_ensure_refuses_another_corpus(tmp_path):
  make_store(tmp_path / "s")
  cfg = DataConfig(corpus="sotu", store=str(tmp_path / "s"))
  with pytest.raises(DataError, match="made from corpus 'files', not 'sotu'"):
    ensure_store(cfg)


def test_ensure_cannot_guess_files(tmp_path):
  cfg = DataConfig(corpus="files", store=str(tmp_path / "none"))
  with pytest.raises(DataError, match="cli.prepare --corpus=files"):
    ensure_store(cfg)


def test_ensure_makes_built_in_corpora(tmp_path, monkeypatch):
  asked = []

  def fetch(name):
    asked.append(name)
    fingerprint = corpora.built_in_fingerprint(name)
    return make_corpus()._replace(name=name, fingerprint=fingerprint)

  monkeypatch.setattr(corpora, "documents", fetch)
  cfg = DataConfig(corpus="sotu", store=str(tmp_path / "deep" / "s"))
  first = ensure_store(cfg)
  assert ensure_store(cfg).index == first.index
  assert asked == ["sotu"]


def test_one_file_stores_are_those_of_version_1(tmp_path):
  """Hashed before there were shards: stored results name these files."""
  make_store(tmp_path / "s")
  found = {
    p.name: hashlib.sha256(p.read_bytes()).hexdigest()
    for p in (tmp_path / "s").iterdir()
  }
  assert found == {
    "index.json": (
      "3fd17da75bb8f18bb10ef18a0191c4f4d638cf0fedba34d677e825d6ba5db640"
    ),
    "tokens.bin": (
      "4430780b195e803728564004798e7751e419a54504500c8cc8c68ef9d0c723f8"
    ),
  }


def test_documents_are_cut_where_they_end(tmp_path):
  store = make_store(tmp_path / "s")
  tokenizer = load_tokenizer("byte")
  for split in corpora.SPLITS:
    mine = [d.read() for d in make_corpus().documents if d.split == split]
    assert [tokenizer.decode(ids) for ids in store.documents(split)] == mine
