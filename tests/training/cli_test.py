"""`train.py` as its users meet it: messages, exit codes, kill and resume."""

import dataclasses
import re
import runpy
import shutil
import sys

import jax
import pytest

from hsa_jax import config as config_lib
from hsa_jax.data.tokenizer import ByteTokenizer

from .helpers import (
  ROOT,
  make_config,
  make_store,
  write_config,
)

# Raised by ml_collections, where it reads a config file.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module")

MAIN = runpy.run_path(str(ROOT / "train.py"))["main"]


@pytest.fixture
def config_file(tmp_path):
  make_store(tmp_path / "store")
  return write_config(
    tmp_path / "tiny.py", make_config(str(tmp_path / "store"))
  )


def refused(capsys, *arguments) -> str:
  """The message of a command that must end with exit code 2."""
  code = MAIN(["train.py", *map(str, arguments)])
  captured = capsys.readouterr()
  assert code == 2, captured
  assert captured.err.startswith("error: ") and "Traceback" not in captured.err
  return captured.err


@pytest.fixture
def no_compilation(monkeypatch):
  def fail(*args, **kwargs):
    raise AssertionError("compiled before the input was checked")

  monkeypatch.setattr(jax, "jit", fail)


BAD = [
  ("--config.model.hsa.topk=4", "model.hsa.topk: no such field.*'top_k'"),
  ("--config.optimiser.b1=0.8", "optimiser: no such field.*'optimizer'"),
  ("--config.data.stages[0].steps=4", "stages.0..steps: no such.*'num_steps'"),
  ("--config.train.seed=abc", "train.seed = 'abc': must be int"),
  ("--config.train.seed=1.5", "train.seed = '1.5': must be int"),
  ("--config.model.hsa.top_k=0", "model.hsa.top_k = 0: must be at least 1"),
  ("--config.model.num_kv_heads=3", "num_kv_heads = 3: must divide"),
  ("--config.model.position=rop", "model.position = 'rop': must be one of"),
  ("--config.data.stages[1].seq_len=20", "seq_len = 20: source 1.*needs"),
  ("--config.model.vocab_size=100", "tokenizer 'byte' has 258 ids"),
  ("--config.mesh.tensor=3", "needs 3 devices"),
  ("--config.data.tokenizer=bite", "bite"),
  ("--wrkdir=x", "Unknown command line flag 'wrkdir'.*workdir"),
  ("runs", "'runs' is not a flag"),
]


@pytest.mark.parametrize(("argument", "message"), BAD)
@pytest.mark.usefixtures("no_compilation")
def test_bad_input_is_one_message(
  capsys, config_file, tmp_path, argument, message
):
  workdir = tmp_path / "run"
  text = refused(
    capsys, f"--config={config_file}", f"--workdir={workdir}", argument
  )

  assert re.search(message, text, re.DOTALL), text
  assert not workdir.exists()


def test_all_problems_at_once(capsys, config_file):
  text = refused(
    capsys,
    "--workdir=x",
    "--config.model.hsa.top_k=0",
    f"--config={config_file}",
    "--config.model.num_kv_heads=3",
  )
  assert "2 problems in" in text and "(with 2 overrides)" in text
  assert "top_k" in text and "num_kv_heads" in text


def test_missing_arguments(capsys, config_file, tmp_path):
  assert "--workdir=DIR is missing" in refused(
    capsys, f"--config={config_file}"
  )
  assert "--config=FILE is missing" in refused(capsys, "--workdir=x")
  nowhere = refused(capsys, f"--config={tmp_path}/no.py", "--workdir=x")
  assert "there is no file" in nowhere


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("def get_config():\n  return 1 / 0\n", "division by zero"),
    ("def get_config(:\n", "invalid syntax"),
    ("x = 1\n", "get_config"),
  ],
)
def test_a_config_file_that_fails(capsys, monkeypatch, tmp_path, text, message):
  # ml_collections runs each file in the module that it made for the last one.
  monkeypatch.delitem(sys.modules, "config_config", raising=False)
  path = tmp_path / "bad.py"
  path.write_text(text)
  assert message in refused(capsys, f"--config={path}", "--workdir=x")


@pytest.mark.usefixtures("no_compilation")
def test_workdir_of_another_config(capsys, config_file, tmp_path):
  workdir = tmp_path / "run"
  workdir.mkdir()

  cfg = make_config(str(tmp_path / "store"))
  other = dataclasses.replace(cfg, train=dataclasses.replace(cfg.train, seed=5))
  (workdir / "config.json").write_text(config_lib.to_json(other))
  before = sorted(p.name for p in workdir.iterdir())
  text = refused(capsys, f"--config={config_file}", f"--workdir={workdir}")
  assert "train.seed: 5 -> 0" in text
  assert sorted(p.name for p in workdir.iterdir()) == before


@pytest.mark.usefixtures("no_compilation")
def test_unwritable_workdir(capsys, config_file, tmp_path):
  (tmp_path / "file").write_text("")
  text = refused(
    capsys, f"--config={config_file}", f"--workdir={tmp_path}/file/run"
  )
  assert "cannot be written" in text


@pytest.mark.usefixtures("no_compilation")
def test_store_of_another_tokenizer(capsys, config_file, tmp_path):
  class Other(ByteTokenizer):
    fingerprint = "0" * 64

  shutil.rmtree(tmp_path / "store")
  make_store(tmp_path / "store", Other())
  text = refused(capsys, f"--config={config_file}", f"--workdir={tmp_path}/run")
  assert "made by" in text and "tokenizer" in text
  assert not (tmp_path / "run").exists()


def test_help_teaches(capsys):
  assert MAIN(["train.py", "--help"]) == 0
  text = capsys.readouterr().out
  for word in ("--config=", "--workdir", "--check", "Exit codes", "resume"):
    assert word in text
