"""What a sharded store is made from, cut into parts before any text is read.

The parts depend on the input and on the size asked for, never on the number of
processes, so a store has the same bytes whoever makes which part.
"""

import concurrent.futures
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hsa_jax.data import corpora
from hsa_jax.data.corpora import FILES, Corpus
from hsa_jax.data.errors import CorpusError
from hsa_jax.data.readers import (
  Format,
  Span,
  TextFile,
  cut_file,
  guess_format,
)

_MIX_BITS = 64
_DIGEST_BYTES = 16


class Shares(NamedTuple):
  """Parts of the documents that are held out, chosen by their content."""

  valid: float = 0.005
  test: float = 0.005


DEFAULT_SHARES = Shares()


class SplitRule(NamedTuple):
  """Which split a document belongs to, where its span does not say.

  Attributes:
    shares: of the documents.
    held_out: digests of documents that no training span may hold.
  """

  shares: Shares = Shares(0.0, 0.0)
  held_out: frozenset[bytes] = frozenset()

  def split(self, text: bytes) -> str:
    """The split of a document; "" leaves it out.

    That is so for empty documents and for copies of held-out ones.
    Copies of one text always go the same way, on any machine.
    """
    digest = text_digest(text)
    if not text or digest in self.held_out:
      return ""
    share = int.from_bytes(digest[:8]) / 2**_MIX_BITS
    if share < self.shares.test:
      return "test"
    return "valid" if share < sum(self.shares) else "train"


class Source(NamedTuple):
  """Text that is ready to be tokenized by any number of processes.

  Attributes:
    name: of the corpus.
    fingerprint: changes whenever text, order or splits change.
    parts: the documents of each shard.
    rule: for spans without a split.
  """

  name: str
  fingerprint: str
  parts: tuple[tuple[Span, ...], ...]
  rule: SplitRule

  @property
  def num_bytes(self) -> int:
    """Size of the input."""
    return sum(span.num_bytes for part in self.parts for span in part)


def text_digest(text: bytes) -> bytes:
  """What tells two documents apart."""
  return hashlib.sha256(text).digest()[:_DIGEST_BYTES]


def source_of_corpus(corpus: Corpus, shard_bytes: int) -> Source:
  """Whole documents with the splits they have."""
  spans = [TextFile(document) for document in corpus.documents]
  parts = _pack(spans, shard_bytes)
  return Source(corpus.name, corpus.fingerprint, parts, SplitRule())


def source_of_rows(
  files: Sequence[str],
  *,
  field: str,
  shard_bytes: int,
  shares: Shares = DEFAULT_SHARES,
  valid_files: Sequence[str] = (),
  test_files: Sequence[str] = (),
  kind: Format = Format.AUTO,
  workers: int = 1,
) -> Source:
  """Files of JSON lines or Parquet, one document per line or row.

  Args:
    files: paths or glob patterns.
    field: holds the text.
    shard_bytes: input per shard.
    shares: of the documents that are held out, where no files are given.
    valid_files: patterns of files held out for validation.
    test_files: patterns held out for evaluation; give both or neither.
    kind: of all files; AUTO goes by each name.
    workers: threads that hash the files, about 1 GB/s each.

  Raises:
    CorpusError: files that are missing, not of this kind, or unreadable.
  """
  if bool(valid_files) != bool(test_files):
    raise CorpusError("give both --valid_files and --test_files, or neither")
  if not files:
    raise CorpusError("corpus 'files': say which with --files='DATA/*.jsonl'")
  splits = _splits(files, valid_files, test_files)
  digests = _unique(splits, workers)
  spans = [
    span
    for path in digests
    for span in cut_file(
      path,
      guess_format(path) if kind is Format.AUTO else kind,
      field=field,
      size=shard_bytes,
      split=splits[path],
    )
  ]
  chosen = bool(valid_files)
  rule = SplitRule(Shares(0.0, 0.0) if chosen else shares, _held_out(spans))
  lines = [f"{splits[p] or 'by content'} {d}" for p, d in digests.items()]
  rules = f"field={field} valid={rule.shares.valid} test={rule.shares.test}"
  fingerprint = hashlib.sha256("\n".join([rules, *lines]).encode()).hexdigest()
  return Source(FILES, fingerprint, _pack(spans, shard_bytes), rule)


def _splits(
  files: Sequence[str], valid: Sequence[str], test: Sequence[str]
) -> dict[Path, str]:
  """Split of each file; empty where the documents are to be chosen."""
  held = {"valid": corpora.expand(valid), "test": corpora.expand(test)}
  if both := set(held["valid"]) & set(held["test"]):
    raise CorpusError(f"{min(both)}: is both a valid file and a test file")
  taken = {path: split for split, paths in held.items() for path in paths}
  train = [path for path in corpora.expand(files) if path not in taken]
  return {path: "" for path in train} | taken


def _unique(splits: dict[Path, str], workers: int) -> dict[Path, str]:
  """Digest of each file; a copy of another file is left out.

  Held-out files win over a copy among the training files.
  """
  # Hashing releases the interpreter's lock.
  with concurrent.futures.ThreadPoolExecutor(workers) as pool:
    digests = dict(
      zip(splits, pool.map(corpora.file_digest, splits), strict=True)
    )
  kept = {digests[path]: path for path in splits}
  return {p: d for p, d in digests.items() if kept[d] == p}


def _held_out(spans: Sequence[Span]) -> frozenset[bytes]:
  """Digests of all documents of held-out files."""
  return frozenset(
    text_digest(text.encode())
    for span in spans
    if span.split
    for text in span.texts()
  )


def _pack(spans: Sequence[Span], size: int) -> tuple[tuple[Span, ...], ...]:
  """Runs of spans with at least `size` bytes each, but for the last."""
  parts: list[tuple[Span, ...]] = []
  part: list[Span] = []
  held = 0
  for span in spans:
    part.append(span)
    held += span.num_bytes
    if held >= size:
      parts.append(tuple(part))
      part, held = [], 0
  return (*parts, tuple(part)) if part else tuple(parts)
