"""Files of tensors: damage and contradictions are told, never read over."""

import json

import numpy as np
import pytest

from hsa_jax.interop.published import PublishedError
from hsa_jax.interop.published.safetensors import (
  INDEX,
  SINGLE,
  find_tensors,
  read_tensor,
)
from tests.interop.published_files import write_file, write_raw


def test_rows_of_a_tensor(tmp_path):
  whole = np.arange(24, dtype="f4").reshape(4, 3, 2)
  write_file(tmp_path / SINGLE, {"a": np.ones(5, "f4"), "b": whole})
  stored = find_tensors(tmp_path)["b"]
  np.testing.assert_array_equal(read_tensor(stored), whole)
  np.testing.assert_array_equal(read_tensor(stored, (1, 3)), whole[1:3])
  assert read_tensor(stored, (2, 2)).shape == (0, 3, 2)


@pytest.mark.parametrize(("kind", "name"), [("F16", "f2"), ("BF16", "bf16")])
def test_sixteen_bits_are_held_exactly(tmp_path, kind, name):
  values = np.array([1.5, -2.25, 0.0], "f4")
  bits = values.view("u4") >> 16
  data = values.astype(name) if kind == "F16" else bits.astype("u2")
  header = {"a": {"dtype": kind, "shape": [3], "data_offsets": [0, 6]}}
  write_raw(tmp_path / SINGLE, header, data.tobytes())
  got = read_tensor(find_tensors(tmp_path)["a"])
  assert got.dtype == np.float32
  np.testing.assert_array_equal(got, values)


def small() -> dict:
  return {"a": np.ones(2, "f4"), "b": np.ones(3, "f4")}


def entry(begin: int, end: int, **changes) -> dict:
  shape = [(end - begin) // 4]
  return {
    "dtype": "F32",
    "shape": shape,
    "data_offsets": [begin, end],
  } | changes


@pytest.mark.parametrize(
  ("content", "line"),
  [
    (b"", "0 bytes that begin with no header"),
    (
      b"version https://git-lfs.github.com/spec/v1\noid",
      "a pointer of git-lfs",
    ),
    (({"a": entry(0, 8)}, b"0" * 7), "bytes, its header tells of"),
    (({"a": entry(0, 8)}, b"0" * 9), "bytes, its header tells of"),
    (({"a": entry(0, 8, shape=[3])}, b"0" * 8), "its header is damaged"),
    (({"a": {"shape": [2]}}, b""), "its header is damaged"),
    (({"a": 7}, b""), "its header is damaged"),
    (({"a": entry(0, 8), "b": entry(4, 12)}, b"0" * 12), "the next one free"),
    (({"a": entry(0, 8), "b": entry(12, 16)}, b"0" * 16), "the next one free"),
  ],
)
def test_damaged_files(tmp_path, content, line):
  path = tmp_path / SINGLE
  if isinstance(content, bytes):
    path.write_bytes(content)
  else:
    write_raw(path, *content)
  with pytest.raises(PublishedError, match=line):
    find_tensors(tmp_path)


def test_a_name_twice(tmp_path):
  one = json.dumps(entry(0, 8))
  text = f'{{"a": {one}, "a": {one}}}'.encode()
  content = len(text).to_bytes(8, "little") + text + b"0" * 8
  (tmp_path / SINGLE).write_bytes(content)
  with pytest.raises(PublishedError, match="a twice"):
    find_tensors(tmp_path)


@pytest.mark.parametrize(
  ("places", "line"),
  [
    ({"a": "one", "b": "one", "c": "one"}, "c: not in one, where"),
    ({"a": "one"}, "b: in one, by .* in nowhere"),
    ({"a": "one", "b": "two"}, "two: is missing, and .* names it"),
    ({"a": "one", "b": "../one"}, "../one: must lie beside it"),
    (None, "no index of safetensors"),
  ],
)
def test_indices_that_are_refused(tmp_path, places, line):
  write_file(tmp_path / "one", small())
  (tmp_path / INDEX).write_text(json.dumps({"weight_map": places}))
  with pytest.raises(PublishedError, match=line):
    find_tensors(tmp_path)
