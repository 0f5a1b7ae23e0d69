"""The file of the disk home, whole and damaged."""

import errno
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from hsa_jax.memory import HostMemory, MemoryHomeError
from hsa_jax.memory.disk import DiskMemory
from hsa_jax.memory.layout import layout_of_block
from hsa_jax.memory.streamed import LandmarkPlace
from tests.memory.cases import cut, make_block, make_query

CAPACITY = 24
BLOCK = make_block(CAPACITY)
LAYOUT = layout_of_block(BLOCK)
ROOT = pathlib.Path(__file__).parents[2]


def open_memory(folder, identity="a", **options) -> DiskMemory:
  return DiskMemory(
    folder, CAPACITY, layout=LAYOUT, identity=identity, **options
  )


@pytest.fixture
def interrupted(tmp_path):
  """16 durable chunks in two extents with a state, 8 that are not."""
  memory = open_memory(tmp_path)
  memory.append(cut(BLOCK, 0, 8)).commit(b"half")
  memory.append(cut(BLOCK, 8, 16)).commit(b"caches")
  memory.append(cut(BLOCK, 16, 24))
  memory.close()
  return tmp_path


def check_answers(memory) -> None:
  """All chunks of `BLOCK` are found and read as in host memory."""
  host = HostMemory(CAPACITY).append(BLOCK)
  query, visible = make_query(), np.array([0, 1, 2, 8, 9, 24, 24])
  want = host.search(query, num_visible=visible, top_k=3)
  got = memory.search(query, num_visible=visible, top_k=3)
  np.testing.assert_array_equal(got.index, want.index)
  np.testing.assert_array_equal(
    memory.read(query, got, None, sink=1), host.read(query, want, None, sink=1)
  )


def check_rebuilt(folder, reason: str) -> None:
  memory = open_memory(folder)
  assert reason in memory.notice and "built anew" in memory.notice
  assert memory.num_chunks == memory.num_durable == 0
  check_answers(memory.append(BLOCK))
  memory.close()


@pytest.mark.parametrize("place", list(LandmarkPlace))
def test_goes_on_after_an_interruption(interrupted, place):
  memory = open_memory(interrupted, landmark_place=place)
  assert memory.notice == ""
  assert memory.num_chunks == memory.num_durable == 16
  assert memory.state() == b"caches"
  memory.append(cut(BLOCK, 16, 24))
  check_answers(memory)
  memory.commit()
  assert memory.state() is None
  names = sorted(p.name for p in interrupted.iterdir())
  assert names == ["chunks-0.bin", "chunks-0.json"]
  size = memory.nbytes()
  assert size.disk == sum(x.nbytes for x in BLOCK)
  assert size.device == (place == "device") * BLOCK.landmarks.nbytes
  memory.close()


def test_truncated_file(interrupted):
  with open(interrupted / "chunks-0.bin", "r+b") as file:
    file.truncate(file.seek(0, os.SEEK_END) - 1)
  check_rebuilt(interrupted, "not as long")


@pytest.mark.parametrize("where", [5, -(9 * LAYOUT.record_bytes)])
def test_flipped_byte_in_landmarks_or_records(interrupted, where):
  path = interrupted / "chunks-0.bin"
  data = bytearray(path.read_bytes())
  data[where] ^= 4
  path.write_bytes(data)
  check_rebuilt(interrupted, "were altered")


def test_bytes_beyond_the_durable_chunks_do_not_matter(interrupted):
  path = interrupted / "chunks-0.bin"
  data = bytearray(path.read_bytes())
  data[-1] ^= 4
  path.write_bytes(data)
  assert open_memory(interrupted).num_chunks == 16


@pytest.mark.parametrize(
  ("name", "reason"),
  [
    ("chunks-0.json", "header is missing"),
    ("chunks-0.bin", "not as long"),
    ("chunks-0.state-16-*", "state beside the chunks is missing"),
  ],
)
def test_missing_file(interrupted, name, reason):
  (path,) = interrupted.glob(name)
  path.unlink()
  check_rebuilt(interrupted, reason)


def test_altered_header_and_state(interrupted):
  path = interrupted / "chunks-0.json"
  header = json.loads(path.read_text())
  path.write_text(json.dumps({**header, "capacity": 23}))
  check_rebuilt(interrupted, "header was altered")
  path.write_text("{")
  check_rebuilt(interrupted, "header cannot be read")


def test_chunks_of_another_context(interrupted):
  memory = open_memory(interrupted, identity="b")
  assert "another context" in memory.notice and memory.num_chunks == 0
  memory.append(BLOCK).commit()
  memory.restart("c")
  memory.append(cut(BLOCK, 0, 8)).commit()
  assert open_memory(interrupted, identity="c").num_chunks == 8
  memory.close(delete=True)
  assert not list(interrupted.iterdir())


def test_full_disk_is_noticed_before_the_work(tmp_path, monkeypatch):
  def full(fd, start, size):
    raise OSError(errno.ENOSPC, "No space left on device")

  monkeypatch.setattr(os, "posix_fallocate", full)
  with pytest.raises(MemoryHomeError, match=r"needs .* left: free some"):
    open_memory(tmp_path)
  assert not list(tmp_path.iterdir())


def test_disk_that_fills_up_later(tmp_path, monkeypatch):
  memory = open_memory(tmp_path)
  memory.append(cut(BLOCK, 0, 8)).commit()

  def full(fd, data, where):
    raise OSError(errno.ENOSPC, "No space left on device")

  with monkeypatch.context() as patch:
    patch.setattr(os, "pwrite", full)
    with pytest.raises(MemoryHomeError, match="kv-dtype"):
      memory.append(cut(BLOCK, 8, 16))
  memory.append(cut(BLOCK, 8, 16)).commit()
  assert open_memory(tmp_path).num_chunks == 16


def test_folder_that_cannot_be_made(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(MemoryHomeError, match="choose another folder"):
    open_memory(tmp_path / "file" / "folder")


KILLED = """
import os, signal, sys
from hsa_jax.memory import file_store
from tests.memory import disk_test as t
memory = t.open_memory(sys.argv[1])
memory.append(t.cut(t.BLOCK, 0, 8)).commit(b"caches")
pwrite = os.pwrite
def half(fd, data, where):
  pwrite(fd, data[: len(data) // 2], where)
  os.kill(os.getpid(), signal.SIGKILL)
os.pwrite = half
memory.append(t.cut(t.BLOCK, 8, 16))
"""


def test_killed_in_the_middle_of_an_append(tmp_path):
  result = subprocess.run(
    [sys.executable, "-c", KILLED, tmp_path],
    cwd=ROOT,
    env={**os.environ, "JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert result.returncode == -9, result.stderr
  memory = open_memory(tmp_path)
  assert (memory.notice, memory.num_chunks) == ("", 8)
  assert memory.state() == b"caches"
  check_answers(memory.append(cut(BLOCK, 8, 24)))
