"""Finished stores: what is compared, object storage, copies."""

import hashlib

import pytest
from etils import epath
from etils.epath import backend
from fsspec.implementations.memory import MemoryFileSystem

from hsa_jax.data.copying import copy_store
from hsa_jax.data.errors import StoreError
from hsa_jax.data.shards import build_shards
from hsa_jax.data.sources import Shares
from hsa_jax.data.store import TokenStore

from .shard_helpers import (
  BYTES,
  Counting,
  contents,
  flip,
  kill_after,
  source_of,
  write_rows,
)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
  return write_rows(tmp_path_factory.mktemp("rows"))


# --- What is checked ---------------------------------------------------------


@pytest.mark.parametrize("name", ["00002.bin", "00002.ends"])
def test_one_flipped_bit_is_found_and_named(rows, tmp_path, name):
  build_shards(source_of(rows), BYTES, tmp_path / "s")
  flip(tmp_path / "s" / name)
  with pytest.raises(StoreError, match=rf"{name}: SHA-256 .* corrupt"):
    TokenStore.open(tmp_path / "s")
  (tmp_path / "s" / name).write_bytes(b"")
  with pytest.raises(StoreError, match=rf"{name}: has 0 bytes .* truncated"):
    TokenStore.open(tmp_path / "s")


def test_the_header_is_checked(rows, tmp_path):
  build_shards(source_of(rows), BYTES, tmp_path / "s")
  file = tmp_path / "s" / "index.json"
  file.write_text(file.read_text().replace('"start": 0', '"start": 1', 1))
  with pytest.raises(StoreError, match="the index is corrupt"):
    TokenStore.open(tmp_path / "s")


def test_hashes_are_those_of_the_files(rows, tmp_path):
  store = build_shards(source_of(rows), BYTES, tmp_path / "s")
  for entry in store.index["shards"]:
    data = (tmp_path / "s" / entry["name"]).read_bytes()
    assert hashlib.sha256(data).hexdigest() == entry["sha256"]
    assert len(data) == 2 * entry["num_tokens"]


# --- Object storage ---------------------------------------------------------


def test_object_storage_that_cannot_be_reached_is_named(rows):
  with pytest.raises(StoreError, match=r"gs://.*gcsfs"):
    build_shards(source_of(rows), BYTES, "gs://bucket/store")
  with pytest.raises(StoreError, match="no such kind of storage"):
    build_shards(source_of(rows), BYTES, "ftp://host/store")
  with pytest.raises(StoreError, match="--copy_from=gs://bucket/store"):
    TokenStore.open("gs://bucket/store")


class Bucket(MemoryFileSystem):
  """Objects by name, without folders and without renaming."""

  cachable = False
  store = {}
  pseudo_dirs = [""]

  @classmethod
  def _strip_protocol(cls, path):
    return "/" + path.removeprefix("gs://").strip("/")

  def mv(self, *args, **kwargs):
    raise AssertionError("renaming an object copies it")


@pytest.fixture
def bucket(monkeypatch):
  found = Bucket()
  found.store.clear()
  patched = backend._FileSystemSpecBackend
  monkeypatch.setattr(patched, "fs", lambda self, path: found)
  return found


def test_object_storage(rows, tmp_path, monkeypatch, bucket):
  """Written, killed, resumed and copied; the same bytes as on a disk."""
  source, url = source_of(rows), "gs://bucket/deep/store"
  kill_after(4, source, url, monkeypatch)
  assert "/bucket/deep/store/progress/00003.json" in bucket.store
  progress = Counting()
  store = build_shards(source, BYTES, url, progress=progress)
  assert progress.shards["kept"] == 4
  build_shards(source, BYTES, tmp_path / "s")
  assert store.index == TokenStore.open(tmp_path / "s").index
  names = {name.rpartition("/")[2] for name in bucket.store}
  assert names == set(contents(tmp_path / "s"))
  copy_store(url, tmp_path / "c")
  assert contents(tmp_path / "c") == contents(tmp_path / "s")
  with pytest.raises(StoreError, match="already holds"):
    build_shards(source, BYTES, url)


def test_a_path_object_is_a_path(rows, tmp_path):
  store = build_shards(source_of(rows), BYTES, epath.Path(tmp_path) / "s")
  assert TokenStore.open(epath.Path(tmp_path) / "s").index == store.index


# --- Copies ------------------------------------------------------------------


def test_a_copy_is_equal_and_goes_on(rows, tmp_path):
  build_shards(source_of(rows), BYTES, tmp_path / "s")
  copy_store(tmp_path / "s", tmp_path / "c")
  assert contents(tmp_path / "c") == contents(tmp_path / "s")
  flip(tmp_path / "c" / "00001.bin")
  (tmp_path / "c" / "index.json").unlink()
  progress = Counting()
  copy_store(tmp_path / "s", tmp_path / "c", progress=progress)
  assert progress.shards["made"] == 1
  assert contents(tmp_path / "c") == contents(tmp_path / "s")


def test_a_damaged_file_is_not_copied(rows, tmp_path):
  build_shards(source_of(rows), BYTES, tmp_path / "s")
  flip(tmp_path / "s" / "00001.bin")
  with pytest.raises(StoreError, match=r"00001\.bin: its SHA-256 is not that"):
    copy_store(tmp_path / "s", tmp_path / "c")
  assert not (tmp_path / "c" / "index.json").exists()


def test_a_copy_mixes_nothing(rows, tmp_path):
  build_shards(source_of(rows), BYTES, tmp_path / "s")
  other = source_of(rows, shares=Shares(0.3, 0.3))
  build_shards(other, BYTES, tmp_path / "t")
  with pytest.raises(StoreError, match="holds another token store"):
    copy_store(tmp_path / "s", tmp_path / "t")
  (tmp_path / "u").mkdir()
  (tmp_path / "u" / "thesis.txt").write_text("years of work")
  with pytest.raises(StoreError, match=r"holds 'thesis\.txt'"):
    copy_store(tmp_path / "s", tmp_path / "u")
