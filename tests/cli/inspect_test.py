"""`inspect` describes every folder that the commands make."""

import json

import pytest

from hsa_jax.cli import inspect
from hsa_jax.config import (
  Config,
  LayerConfig,
  Mixer,
  Mlp,
  ModelConfig,
  Position,
  config_hash,
  to_json,
)
from hsa_jax.data.corpora import Corpus, Document
from hsa_jax.data.store import build_store
from hsa_jax.data.tokenizer import load_tokenizer
from hsa_jax.evaluation.results import ResultStore, RunInfo


def run(capsys, *paths) -> tuple[int, str, str]:
  code = inspect.main(["inspect", *map(str, paths)])
  return code, *capsys.readouterr()


def test_describes_a_run_without_checkpoint(tmp_path, capsys):
  (tmp_path / "config.json").write_text(to_json(Config()))
  lines = [
    {"step": 5, "train/loss_nats": 3.25, "perf/step_s": 0.5},
    {"step": 9, "train/loss_nats": 2.5},
  ]
  text = "".join(json.dumps(line) + "\n" for line in lines)
  (tmp_path / "metrics.jsonl").write_text(text)
  code, out, _ = run(capsys, tmp_path)
  assert code == 0
  assert config_hash(Config()) in out
  assert "2.5 (step 9)" in out and "0.5 (step 5)" in out
  assert "checkpoint   none yet" in out


def test_describes_a_pattern_of_layers(tmp_path, capsys):
  full = LayerConfig(mixer=Mixer.FULL, position=Position.NONE)
  model = ModelConfig(layers=(LayerConfig(), full))
  (tmp_path / "config.json").write_text(to_json(Config(model=model)))
  _, out, _ = run(capsys, tmp_path)
  assert "layers       window (relative_rope), full (none), and again" in out


def test_describes_recurrent_layers(tmp_path, capsys):
  """They have no positions, and perhaps no MLP."""
  mamba = LayerConfig(mixer=Mixer.MAMBA2, mlp=Mlp.NONE)
  layers = (mamba, LayerConfig(mixer=Mixer.GLA), LayerConfig())
  cfg = Config(model=ModelConfig(layers=layers))
  (tmp_path / "config.json").write_text(to_json(cfg))
  _, out, _ = run(capsys, tmp_path)
  assert "mamba2 without MLP, gla, window (relative_rope), and again" in out


def test_describes_results(tmp_path, capsys):
  info = RunInfo("a", "runs/a", 7, "h", "t", "s", 0, 256, 10, None)
  row = {
    "suite": "hsa_ruler",
    "protocol": "token",
    "task": "s_niah",
    "haystack": "text",
    "needle": "digits",
    "length": 1024,
    "num_samples": 20,
    "metric": "exact_match",
    "score": 0.95,
    "ci_low": 0.76,
    "ci_high": 0.99,
  }
  ResultStore(tmp_path, info).add_result(row)
  code, out, _ = run(capsys, tmp_path)
  assert code == 0
  assert "exact_match 0.950 [0.760, 0.990] of 20" in out


def test_describes_a_token_store(tmp_path, capsys):
  documents = tuple(
    Document(split, split, 5, lambda split=split: split)
    for split in ("train", "valid", "test")
  )
  tokenizer = load_tokenizer("byte")
  build_store(Corpus("files", "f", documents), tokenizer, tmp_path / "store")
  code, out, _ = run(capsys, tmp_path / "store")
  assert code == 0
  assert tokenizer.fingerprint in out
  assert "6 tokens in 1 documents" in out  # "train" or "valid", and eos


@pytest.mark.parametrize("name", ["empty", "absent"])
def test_other_folders_are_one_message(tmp_path, capsys, name):
  (tmp_path / "empty").mkdir()
  code, out, err = run(capsys, tmp_path / name)
  assert (code, out) == (2, "")
  assert err.startswith("error: ") and "fix:" in err


def test_damaged_config_is_one_message(tmp_path, capsys):
  (tmp_path / "config.json").write_text("{")
  code, _, err = run(capsys, tmp_path)
  assert code == 2 and "config.json" in err


def test_without_arguments_prints_usage(capsys):
  code, _, err = run(capsys)
  assert code == 2 and "runs/quickstart" in err
