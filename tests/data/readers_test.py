import gzip
import json
import sys

import pytest

from hsa_jax.data.errors import CorpusError
from hsa_jax.data.readers import Format, JsonLines, cut_file, guess_format

TEXTS = ["one", "", "drei\nZeilen\n", "vier \u00e4\u20ac\U0001f600", "x" * 300]


def _jsonl(path, texts=TEXTS, ending="\n"):
  lines = [json.dumps({"id": i, "text": t}) for i, t in enumerate(texts)]
  path.write_text("\n".join(lines) + ending, encoding="utf-8")
  return path


def _read(spans):
  return [text for span in spans for text in span.texts()]


@pytest.mark.parametrize("ending", ["", "\n", "\n\n"])
def test_every_line_lies_in_exactly_one_span(tmp_path, ending):
  path = _jsonl(tmp_path / "a.jsonl", ending=ending)
  size = path.stat().st_size
  for step in range(1, size + 1):
    spans = cut_file(path, Format.JSONL, field="text", size=step)
    assert _read(spans) == TEXTS, step
    assert sum(span.num_bytes for span in spans) == size


def test_spans_do_not_share_lines(tmp_path):
  path = _jsonl(tmp_path / "a.jsonl")
  border = path.read_bytes().index(b"\n") + 1
  for stop, count in ((border - 1, 1), (border, 1), (border + 1, 2)):
    left = JsonLines(path, 0, stop, stop, "text")
    right = JsonLines(path, stop, -1, 0, "text")
    assert list(left.texts()) == TEXTS[:count]
    assert list(right.texts()) == TEXTS[count:]


def test_newlines_become_line_feeds(tmp_path):
  path = _jsonl(tmp_path / "a.jsonl", ["a\r\nb\rc\n"])
  assert _read(cut_file(path, Format.JSONL, field="text", size=9)) == [
    "a\nb\nc\n"
  ]


def test_packed_lines_are_one_span(tmp_path):
  path = tmp_path / "a.jsonl.gz"
  path.write_bytes(gzip.compress(_jsonl(tmp_path / "a.jsonl").read_bytes()))
  spans = cut_file(path, guess_format(path), field="text", size=3)
  assert len(spans) == 1
  assert _read(spans) == TEXTS


@pytest.mark.parametrize(
  ("line", "message"),
  [
    (b'{"text": "a}', "line 4: not JSON at column 10"),
    (b'["a"]', "line 4: not a JSON object but list"),
    (b'{"body": "a"}', "line 4: no field 'text', only body; .*--text_field"),
    (b'{"text": null}', r"line 4: field 'text' is empty \(null\)"),
    (b'{"text": 5}', "line 4: field 'text' is int"),
    (b'{"text": "\xff"}', "line 4: not UTF-8 at byte 10 of the line"),
    (b'{"text": "\\ud800"}', "line 4: field 'text': half a surrogate"),
  ],
)
@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz"])
def test_a_bad_line_is_named(tmp_path, line, message, suffix):
  path = tmp_path / f"a.{suffix}"
  good = b'{"text": "fine"}\n'
  data = b"\n".join([good, good.strip(), line, good])  # the second is empty
  path.write_bytes(gzip.compress(data) if suffix.endswith("gz") else data)
  spans = cut_file(path, Format.JSONL, field="text", size=20)
  with pytest.raises(CorpusError, match=rf"a\.{suffix}, {message}"):
    _read(spans)


def test_a_torn_packed_file_is_named(tmp_path):
  path = tmp_path / "a.jsonl.gz"
  path.write_bytes(gzip.compress(b'{"text": "fine"}\n' * 9_000)[:-40])
  with pytest.raises(CorpusError, match=r"a\.jsonl\.gz: cannot be read"):
    _read(cut_file(path, Format.JSONL, field="text", size=100))


def test_formats_by_name(tmp_path):
  names = {
    "a.txt": "text",
    "b.jsonl": "jsonl",
    "c.parquet": "parquet",
    "d": "text",
  }
  for name, kind in names.items():
    assert guess_format(tmp_path / name) == kind
  with pytest.raises(CorpusError, match=r"\.zst files are not read"):
    guess_format(tmp_path / "a.jsonl.zst")


def _parquet(path, texts=TEXTS, rows=2, name="text"):
  pa = pytest.importorskip("pyarrow")
  import pyarrow.parquet

  table = pa.table({"id": list(range(len(texts))), name: texts})
  pyarrow.parquet.write_table(table, path, row_group_size=rows)
  return path


@pytest.mark.parametrize(("size", "count"), [(1, 3), (10**6, 1)])
def test_row_groups_are_not_cut(tmp_path, size, count):
  path = _parquet(tmp_path / "a.parquet")
  spans = cut_file(path, Format.PARQUET, field="text", size=size)
  assert len(spans) == count
  assert _read(spans) == TEXTS


def test_a_bad_row_is_named(tmp_path):
  path = _parquet(tmp_path / "a.parquet", ["a", "b", "c", None])
  with pytest.raises(CorpusError, match=r"a\.parquet, row 4: field 'text'"):
    _read(cut_file(path, Format.PARQUET, field="text", size=1))
  with pytest.raises(CorpusError, match="no column 'body', only id, text"):
    cut_file(path, Format.PARQUET, field="body", size=1)


def test_a_damaged_parquet_file_is_named(tmp_path):
  path = _parquet(tmp_path / "a.parquet")
  path.write_bytes(path.read_bytes()[:-9])
  with pytest.raises(CorpusError, match=r"a\.parquet: cannot be read"):
    cut_file(path, Format.PARQUET, field="text", size=1)


def test_without_pyarrow_the_fix_is_named(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
  path = tmp_path / "a.parquet"
  path.write_bytes(b"")
  with pytest.raises(CorpusError, match="pip install pyarrow"):
    cut_file(path, Format.PARQUET, field="text", size=1)
