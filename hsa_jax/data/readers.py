"""Documents out of text, JSON lines and Parquet, by spans that stand alone.

A span is a part of the input that one process reads without the others: whole
text files, a range of bytes of a JSON lines file, some row groups of a Parquet
file. Every document lies in exactly one span.
"""

import enum
import gzip
import importlib
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol, cast

from hsa_jax.data.corpora import Document, unix_lines
from hsa_jax.data.errors import CorpusError

_ROWS_AT_ONCE = 256


class Format(enum.StrEnum):
  """How documents lie in the files; AUTO goes by their names."""

  AUTO = "auto"
  TEXT = "text"
  JSONL = "jsonl"
  PARQUET = "parquet"


_SUFFIXES = {
  ".jsonl": Format.JSONL,
  ".ndjson": Format.JSONL,
  ".jsonl.gz": Format.JSONL,
  ".json.gz": Format.JSONL,
  ".parquet": Format.PARQUET,
}
_PACKED = (".zst", ".bz2", ".xz", ".zip", ".tar", ".gz")


class Span(Protocol):
  """Some documents of a corpus; small to pickle."""

  @property
  def num_bytes(self) -> int:
    """Size in the input, for progress and for cutting shards."""
    ...

  @property
  def split(self) -> str:
    """Split of all its documents; empty: chosen by their content."""
    ...

  def texts(self) -> Iterator[str]:
    """The documents in order, every newline a line feed.

    Raises:
      CorpusError: names the file and the line or row that cannot be read.
    """
    ...


class TextFile(NamedTuple):
  """A whole file, or any other document that is read at once."""

  document: Document

  @property
  def num_bytes(self) -> int:
    return self.document.num_bytes

  @property
  def split(self) -> str:
    return self.document.split

  def texts(self) -> Iterator[str]:
    try:
      text = self.document.read()
    except OSError as e:
      raise _unreadable(self.document.title, e) from e
    yield text


class JsonLines(NamedTuple):
  """Lines whose first byte lies in `start .. stop - 1`, one JSON object each.

  Attributes:
    path: the file; with the suffix `.gz` bytes are those it unpacks to.
    start: first byte.
    stop: byte after the last; -1 reads to the end.
    num_bytes: size in the input.
    field: holds the text.
    split: of all documents, or empty.
  """

  path: Path
  start: int
  stop: int
  num_bytes: int
  field: str
  split: str = ""

  def texts(self) -> Iterator[str]:
    for offset, line in _guarded(self.path, self._lines()):
      if line.strip():
        try:
          yield _text_of_line(line.rstrip(), self.field)
        except ValueError as e:
          where = f"{self.path}, line {_line_number(self.path, offset)}"
          raise CorpusError(f"{where}: {e}") from e

  def _lines(self) -> Iterator[tuple[int, bytes]]:
    with _open(self.path) as f:
      offset = self.start
      if self.start:
        # A line that began before belongs to the span before.
        f.seek(self.start - 1)
        offset += len(f.readline()) - 1
      while self.stop < 0 or offset < self.stop:
        line = f.readline()
        if not line:
          return
        yield offset, line
        offset += len(line)


class ParquetRows(NamedTuple):
  """Row groups of a Parquet file.

  Attributes:
    path: the file.
    first: first row group.
    last: row group after the last.
    num_bytes: size of the groups as stored.
    field: column that holds the text.
    split: of all documents, or empty.
  """

  path: Path
  first: int
  last: int
  num_bytes: int
  field: str
  split: str = ""

  def texts(self) -> Iterator[str]:
    for row, value in _guarded(self.path, self._values()):
      try:
        yield _checked(value, self.field)
      except ValueError as e:
        raise CorpusError(f"{self.path}, row {row + 1}: {e}") from e

  def _values(self) -> Iterator[tuple[int, Any]]:
    with open_parquet(self.path) as file:
      groups = (file.metadata.row_group(i) for i in range(self.first))
      row = sum(group.num_rows for group in groups)
      batches = file.iter_batches(
        batch_size=_ROWS_AT_ONCE,
        row_groups=list(range(self.first, self.last)),
        columns=[self.field],
        use_threads=False,
      )
      for batch in batches:
        for value in batch.column(0).to_pylist():
          yield row, value
          row += 1


def guess_format(path: Path) -> Format:
  """By the suffix; anything that is not known is text.

  Raises:
    CorpusError: a packed file that is not read.
  """
  for suffix, found in _SUFFIXES.items():
    if path.name.endswith(suffix):
      return found
  if path.suffix in _PACKED:
    raise CorpusError(
      f"{path}: {path.suffix} files are not read, only .jsonl.gz; unpack it"
    )
  return Format.TEXT


def cut_file(
  path: Path, kind: Format, *, field: str, size: int, split: str = ""
) -> list[Span]:
  """The spans of a file of JSON lines or Parquet.

  Args:
    path: the file.
    kind: JSONL or PARQUET.
    field: of the text.
    size: bytes that a span should have. Row groups, lines and packed files are
      not cut.
    split: of all documents, or empty.

  Raises:
    CorpusError: not a Parquet file, or no such column.
  """
  if kind is Format.PARQUET:
    return list(_cut_parquet(path, field, size, split))
  total = path.stat().st_size
  if path.suffix == ".gz":
    return [JsonLines(path, 0, -1, total, field, split)]
  starts = range(0, total, size)
  return [
    JsonLines(path, start, stop, stop - start, field, split)
    for start in starts
    for stop in (min(start + size, total),)
  ]


def open_parquet(path: Path) -> Any:
  """A Parquet file, opened with the optional package `pyarrow`.

  Raises:
    CorpusError: no package, or not a Parquet file.
  """
  try:
    parquet = importlib.import_module("pyarrow.parquet")
  except ImportError as e:
    raise CorpusError(
      f"{path}: reading Parquet needs the package 'pyarrow', which is not"
      " installed; run: python -m pip install pyarrow"
    ) from e
  try:
    return parquet.ParquetFile(path)
  except (OSError, ValueError) as e:  # pyarrow's errors are among these
    raise _unreadable(str(path), e) from e


def _cut_parquet(
  path: Path, field: str, size: int, split: str
) -> Iterator[Span]:
  with open_parquet(path) as file:
    names = file.schema_arrow.names
    if field not in names:
      raise CorpusError(
        f"{path}: no column {field!r}, only {', '.join(names)}; name the one"
        " with the text: --text_field"
      )
    groups = range(file.metadata.num_row_groups)
    sizes = [file.metadata.row_group(i).total_byte_size for i in groups]
  first = 0
  for i in groups:
    if sum(sizes[first : i + 1]) >= size or i == groups[-1]:
      taken = sum(sizes[first : i + 1])
      yield ParquetRows(path, first, i + 1, taken, field, split)
      first = i + 1


def _guarded(path: Path, items: Iterator[Any]) -> Iterator[Any]:
  """Items of a file; what stops the reading names the file."""
  while True:
    try:
      item = next(items, None)
    except (OSError, EOFError, ValueError, zlib.error) as e:
      raise _unreadable(str(path), e) from e
    if item is None:
      return
    yield item


def _unreadable(name: str, error: Exception) -> CorpusError:
  # Errors of this module already say what and where.
  if isinstance(error, CorpusError):
    return error
  reason = str(error).strip().splitlines() or [type(error).__name__]
  return CorpusError(
    f"{name}: cannot be read ({reason[0]}): the file is damaged or is something"
    " else; fetch it again or leave it out"
  )


def _open(path: Path) -> IO[bytes]:
  if path.suffix == ".gz":
    return cast(IO[bytes], gzip.open(path, "rb"))
  return path.open("rb")


def _text_of_line(line: bytes, field: str) -> str:
  try:
    text = line.decode("utf-8")
  except UnicodeDecodeError as e:
    raise ValueError(f"not UTF-8 at byte {e.start} of the line") from e
  try:
    found = json.loads(text)
  except json.JSONDecodeError as e:
    raise ValueError(f"not JSON at column {e.colno} ({e.msg})") from e
  if not isinstance(found, dict):
    raise ValueError(f"not a JSON object but {type(found).__name__}")
  if field not in found:
    names = ", ".join(found) or "none"
    raise ValueError(
      f"no field {field!r}, only {names}; name the one with the text:"
      " --text_field"
    )
  return _checked(found[field], field)


def _checked(value: Any, field: str) -> str:
  if not isinstance(value, str):
    kind = "empty (null)" if value is None else type(value).__name__
    raise ValueError(f"field {field!r} is {kind}, not text")
  try:
    value.encode("utf-8")
  except UnicodeEncodeError as e:
    raise ValueError(f"field {field!r}: half a surrogate pair") from e
  return unix_lines(value)


def _line_number(path: Path, offset: int) -> int:
  """1-based number of the line that begins at a byte."""
  count = 1
  with _open(path) as f:
    while offset > 0:
      block = f.read(min(offset, 1 << 20))
      if not block:
        break
      count += block.count(b"\n")
      offset -= len(block)
  return count
