"""From text to an answer, on a vocabulary that was learned on the way."""

import dataclasses
import json
import runpy

import pytest

from hsa_jax.cli import evaluate, generate, prepare, tokenizer
from hsa_jax.config import DataConfig, StageConfig
from hsa_jax.data.store import TokenStore
from hsa_jax.data.tokenizer import load_tokenizer
from tests.training.helpers import ROOT, make_config, text, write_config

pytest.importorskip("tokenizers")
pytestmark = [
  pytest.mark.slow,
  # Raised by ml_collections, where it reads a config file.
  pytest.mark.filterwarnings("ignore:the load_module"),
]


def test_train_a_tokenizer_then_a_model_on_it(tmp_path, capsys):
  for i in range(6):
    (tmp_path / f"{i}.txt").write_text(text(4_000, i))
  files, made = f"--files={tmp_path}/*.txt", tmp_path / "t.json"
  flags = ["train", "--vocab=400", files, f"--out={made}"]
  assert tokenizer.main(flags) == 0
  spec, store = f"hf:{made}", tmp_path / "store"
  flags = ["--corpus=files", files, f"--tokenizer={spec}", f"--out={store}"]
  assert prepare.main(["prepare", *flags]) == 0
  vocabulary = load_tokenizer(spec)
  assert TokenStore.open(store).fingerprint == vocabulary.fingerprint
  assert TokenStore.open(store).bytes_per_token("test") > 1.5

  data = DataConfig(
    corpus="files",
    tokenizer=spec,
    store=str(store),
    stages=(StageConfig("text", 2, 32, 2),),
  )
  base = make_config()
  model = dataclasses.replace(base.model, vocab_size=400)
  optimizer = dataclasses.replace(base.optimizer, warmup_steps=1)
  cfg = dataclasses.replace(base, model=model, data=data, optimizer=optimizer)
  config, run = write_config(tmp_path / "cfg.py", cfg), tmp_path / "run"
  train = runpy.run_path(str(ROOT / "train.py"))["main"]
  assert train(["train.py", f"--config={config}", f"--workdir={run}"]) == 0

  flags = ["--lengths=1K", "--samples=2", "--haystack=text", "--segment=256"]
  assert evaluate.main([f"--checkpoint={run}", *flags]) == 0
  rows = (run / "eval" / "results.jsonl").read_text().splitlines()
  (result,) = [json.loads(row) for row in rows]
  assert (result["task"], result["length"]) == ("s_niah", 1024)
  assert result["num_samples"] == 2 and 0 <= result["score"] <= 1

  capsys.readouterr()
  flags = ["--prompt=abc fgh.", "--max-tokens=5", "--no-stop-at-eos"]
  assert generate.main([f"--checkpoint={run}", *flags]) == 0
  assert "prefill " in capsys.readouterr().err
