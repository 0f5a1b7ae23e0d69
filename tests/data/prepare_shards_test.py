"""The command, from its flags to its files; killed for real."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from hsa_jax.cli.prepare import main
from hsa_jax.config import DataConfig
from hsa_jax.data.build import ensure_store
from hsa_jax.data.store import TokenStore

from .helpers import make_text

FEW = ("--valid_share=0.1", "--test_share=0.1")


@pytest.fixture(scope="module")
def crawl(tmp_path_factory):
  """1.2 MB of rows in two files."""
  folder = tmp_path_factory.mktemp("crawl")
  for name in ("a", "b"):
    rows = [{"body": make_text(3_000, ord(name) + i)} for i in range(200)]
    text = "\n".join(map(json.dumps, rows))
    (folder / f"{name}.jsonl").write_text(text)
  return str(folder / "*.jsonl")


def _flags(crawl, out, *more):
  given = [f"--files={crawl}", "--text_field=body", f"--out={out}"]
  return ["prepare", "--corpus=files", *given, "--shard_mb=0.02", *FEW, *more]


def _bytes(folder):
  return {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def whole(crawl, tmp_path_factory):
  out = tmp_path_factory.mktemp("whole") / "s"
  assert main(_flags(crawl, out, "--workers=1")) == 0
  return _bytes(out)


def test_rows_become_shards(crawl, tmp_path, capsys):
  assert main(_flags(crawl, tmp_path / "s", "--workers=2")) == 0
  printed = capsys.readouterr()
  assert "61 shards of 1.2 MB, 2 processes" in printed.err
  assert "tokenized 1.2 of 1.2 MB" in printed.err
  assert "MB/s" in printed.err and "s left" in printed.err
  assert "61 shards" in printed.out
  store = TokenStore.open(tmp_path / "s")
  assert sum(e["documents"] for e in store.index["splits"].values()) == 400
  assert main(_flags(crawl, tmp_path / "s")) == 0
  assert "same text and tokenizer: kept" in capsys.readouterr().err
  cfg = DataConfig(corpus="files", store=str(tmp_path / "s"))
  assert ensure_store(cfg).index == store.index


def _start(crawl, out):
  command = [sys.executable, "-m", "hsa_jax.cli.prepare"]
  flags = _flags(crawl, out, "--workers=2")[1:]
  return subprocess.Popen([*command, *flags], stderr=subprocess.DEVNULL)


def _kill_when(run, out, shards):
  """SIGKILL once so many shards are there; waits for the workers' end."""
  while run.poll() is None:
    if len(list(out.glob("progress/0*.json"))) >= shards:
      break
    time.sleep(0.005)
  try:
    workers = psutil.Process(run.pid).children(recursive=True)
  except psutil.NoSuchProcess:
    workers = []
  run.send_signal(signal.SIGKILL)
  run.wait()
  _, alive = psutil.wait_procs(workers, timeout=120)
  assert not alive
  return run.returncode


def test_killed_and_run_again(crawl, whole, tmp_path):
  out = tmp_path / "s"
  assert _kill_when(_start(crawl, out), out, 3) == -signal.SIGKILL
  assert not (out / "index.json").exists()
  assert list(out.glob("progress/0*.json"))
  assert main(_flags(crawl, out)) == 0
  assert _bytes(out) == whole


@pytest.mark.slow
def test_killed_ten_times(crawl, whole, tmp_path):
  out = tmp_path / "s"
  for shards in range(4, 44, 4):
    _kill_when(_start(crawl, out), out, shards)
  assert not (out / "index.json").exists()
  assert main(_flags(crawl, out, "--workers=2")) == 0
  assert _bytes(out) == whole


def test_text_as_shards_is_asked_for(tmp_path):
  for i in range(8):
    (tmp_path / f"{i}.txt").write_text(make_text(500 + i, i))
  files = f"--files={tmp_path}/*.txt"
  for out, layout in (("one", "auto"), ("many", "shards")):
    flags = ["--corpus=files", files, f"--out={tmp_path / out}"]
    size = "--shard_mb=0.001"
    assert main(["prepare", *flags, f"--layout={layout}", size]) == 0
  one, many = (TokenStore.open(tmp_path / n) for n in ("one", "many"))
  assert (tmp_path / "one" / "tokens.bin").exists()
  assert len(many.index["shards"]) > 2
  assert one.num_tokens("train") == many.num_tokens("train")


def test_parquet(tmp_path):
  pa = pytest.importorskip("pyarrow")
  import pyarrow.parquet

  texts = [make_text(100 + i, i) for i in range(60)]
  table = pa.table({"text": texts})
  pyarrow.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=7)
  flags = [f"--files={tmp_path}/a.parquet", f"--out={tmp_path / 's'}", *FEW]
  more = ["--corpus=files", "--shard_mb=0.001", "--workers=1"]
  assert main(["prepare", *more, *flags]) == 0
  store = TokenStore.open(tmp_path / "s")
  assert sum(e["documents"] for e in store.index["splits"].values()) == 60


def test_copy(crawl, whole, tmp_path, capsys):
  assert main(_flags(crawl, tmp_path / "s", "--workers=1")) == 0
  copy = [f"--copy_from={tmp_path / 's'}", f"--out={tmp_path / 'c'}"]
  assert main(["prepare", *copy]) == 0
  assert "copied" in capsys.readouterr().err
  assert _bytes(tmp_path / "c") == whole


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (["--layout=file"], "--layout=file: JSON lines and Parquet are written as"),
    (["--layout=many"], "layout"),
    (["--workers=-1"], "workers"),
    (["--shard_mb=0"], "shard_mb"),
    (["--valid_share=0.5", "--test_share=0.5"], "must be below 1"),
    (["--valid_files={d}/*.jsonl"], "give both --valid_files and --test_files"),
    (["--files={d}/../texts/a.txt"], "text and rows in one corpus"),
    (["--text_field=text"], "line 1: no field 'text', only body"),
    (["--format=text"], "at least 3 are needed"),
    (["--copy_from={d}/none"], "no finished token store there"),
    (["--out=gs://bucket/s"], "gcsfs"),
  ],
)
def test_bad_input_is_one_message_and_exit_code_2(
  crawl, tmp_path, capsys, flags, message
):
  folder = os.path.dirname(crawl)
  os.makedirs(f"{folder}/../texts", exist_ok=True)
  with open(f"{folder}/../texts/a.txt", "w") as f:
    f.write("text")
  more = [flag.format(d=folder) for flag in flags]
  assert main(_flags(crawl, tmp_path / "s", "--workers=1", *more)) == 2
  error = capsys.readouterr().err
  assert message in error
  assert "\nerror: " in f"\n{error}"
