"""Published weights become a checkpoint that every command takes."""

import json
import shutil

import jax
import numpy as np
import pytest

from hsa_jax.cli import evaluate, generate, inspect, load_hf
from hsa_jax.config import OptimizerConfig, TrainConfig
from hsa_jax.data.tokenizer import load_tokenizer
from hsa_jax.data.train_bpe import train_bpe
from hsa_jax.models import LanguageModel
from hsa_jax.parallel import make_mesh
from hsa_jax.training.beginning import first_state
from hsa_jax.training.checkpoint import (
  Checkpointer,
  CheckpointError,
  RunInfo,
  load_model,
  read_metadata,
)
from hsa_jax.training.inputs import Inputs
from hsa_jax.training.optimizer import make_optimizer
from hsa_jax.training.state import abstract_state
from tests.evaluation.helpers import make_store
from tests.interop.published_files import FIXTURES, frozen, logits_of

COHERE = FIXTURES / "cohere2"
PROMPT = "abc fgh. " * 2


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  """The fixture as a checkpoint, with a store of random letters."""
  root = tmp_path_factory.mktemp("loaded")
  make_store(root / "store")
  flags = ("--tokenizer=byte", "--compute-dtype=float32", "--corpus=files")
  out = root / "run"
  argv = [str(COHERE), f"--workdir={out}", f"--store={root / 'store'}", *flags]
  assert load_hf.main(argv) == 0
  return out


def call(capsys, *flags, folder=COHERE):
  code = load_hf.main([str(folder), *flags])
  return code, *capsys.readouterr()


def test_the_checkpoint_computes_the_frozen_logits(workdir):
  model, cfg, meta = load_model(workdir)
  assert (meta.step, meta.tokens_seen, meta.tokenizer) == (0, 0, "byte")
  assert cfg.data.stages[0].seq_len == 512
  got = logits_of(model, frozen("cohere2")["tokens"])
  want = frozen("cohere2")["logits"]
  np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)


def test_it_continues_a_prompt(workdir, capsys):
  argv = [f"--checkpoint={workdir}", f"--prompt={PROMPT}"]
  assert generate.main([*argv, "--max-tokens=5", "--no-stop-at-eos"]) == 0
  assert "prefill" in capsys.readouterr().err


def test_mamba_is_loaded_and_continues_a_prompt(tmp_path, capsys):
  out = tmp_path / "run"
  flags = (f"--workdir={out}", "--tokenizer=byte")
  assert call(capsys, *flags, folder=FIXTURES / "mamba2")[0] == 0
  model, cfg, _ = load_model(out)
  tokens, want = frozen("mamba2")["tokens"], frozen("mamba2")["logits"]
  np.testing.assert_allclose(logits_of(model, tokens), want, rtol=0, atol=1e-5)
  argv = [f"--checkpoint={out}", f"--prompt={PROMPT}", "--max-tokens=4"]
  assert generate.main([*argv, "--no-stop-at-eos"]) == 0
  written = capsys.readouterr().out.removesuffix("\n")
  tokenizer = load_tokenizer("byte")
  tokens = list(tokenizer.encode(PROMPT))
  for _ in range(4):
    row = np.asarray(tokens, np.int32)[None]
    logits = logits_of(model, row)[0, -1, : tokenizer.vocab_size]
    tokens.append(int(np.argmax(logits)))
  assert written == tokenizer.decode(tokens[-4:])


def test_it_is_described(workdir, capsys):
  assert inspect.main(["", str(workdir)]) == 0
  told = capsys.readouterr().out
  assert "block        parallel, norm layer, logits times 0.25" in told
  assert "checkpoint   step 0, 0 tokens seen" in told


def test_it_is_evaluated(workdir, capsys):
  argv = [f"--checkpoint={workdir}", "--lengths=256", "--samples=1"]
  suites = "--suites=ppl,effective_attention"
  flags = [suites, "--tasks=by_length", "--segment=64"]
  assert evaluate.main([*argv, *flags]) == 0
  told = (workdir / "eval" / "report.md").read_text()
  assert "Effective attention" in told and "perplexity" in told.lower()


def test_a_run_begins_with_it(workdir):
  _, cfg, meta = load_model(workdir)
  mesh = make_mesh(cfg.mesh)
  tx = make_optimizer(OptimizerConfig(), num_steps=100)
  begun = TrainConfig(init_from=str(workdir))
  cfg = type(cfg)(model=cfg.model, data=cfg.data, train=begun)

  def build(rngs):
    return LanguageModel(cfg.model, rngs=rngs)

  inputs = Inputs(
    build=build,
    data=None,  # type: ignore[arg-type]
    info=RunInfo(cfg, "byte", meta.tokenizer_fingerprint),
    bytes_per_token=1.0,
  )
  abstract = abstract_state(build, tx, mesh=mesh)
  state = first_state(cfg, inputs, tx, abstract=abstract, mesh=mesh)
  got = logits_of(state.model, frozen("cohere2")["tokens"])
  want = frozen("cohere2")["logits"]
  np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)
  saver = Checkpointer(workdir, inputs.info)
  with pytest.raises(CheckpointError, match="train.init_from = .*run"):
    saver.restore(0, abstract)
  saver.close()
  assert all(jax.tree.leaves(jax.tree.map(np.any, state.model)))


def test_the_tokenizer_beside_the_weights_is_taken(tmp_path, capsys):
  pytest.importorskip("tokenizers")
  folder, out = tmp_path / "model", tmp_path / "run"
  shutil.copytree(COHERE, folder)
  text = train_bpe(["of the people, by the people"], vocab_size=260)
  (folder / "tokenizer.json").write_text(text)
  code, told, _ = call(capsys, f"--workdir={out}", folder=folder)
  assert code == 0 and f"tokenizer     hf:{out}/tokenizer.json" in told
  shutil.rmtree(folder)
  cfg, meta = read_metadata(out / "checkpoints" / "0")
  made = load_tokenizer(cfg.data.tokenizer)
  assert made.fingerprint == meta.tokenizer_fingerprint
  assert cfg.model.compute_dtype == "bfloat16"
  text = train_bpe(["of the people " * 9], vocab_size=265)
  (tmp_path / "large.json").write_text(text)
  flags = (f"--workdir={out}2", f"--tokenizer=hf:{tmp_path}/large.json")
  code, _, error = call(capsys, *flags)
  assert code == 2 and "model.vocab_size = 264: tokenizer" in error


def test_a_look_writes_nothing(tmp_path, capsys):
  flags = (f"--workdir={tmp_path / 'run'}", "--tokenizer=byte", "--check")
  code, told, _ = call(capsys, *flags)
  assert code == 0
  assert "tensors       42 of BF16 in 3 file(s), 0.00 GiB" in told
  assert "parameters    13,920" in told
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ("flags", "line"),
  [
    (["--tokenizer=byte"], "--workdir is missing: the folder to make"),
    (["--workdir=/tmp/none"], "give --tokenizer=hf:FILE with the vocabulary"),
    (
      ["--workdir=/tmp/none", "--tokenizer=bytes"],
      "must be 'byte' or 'hf:/path",
    ),
    (
      ["--tokenizer=byte", "--check", "--compute-dtype=float16"],
      "model.compute_dtype = 'float16': must be one of float32, bfloat16",
    ),
    (["--wrokdir=x"], "--wrokdir=x"),
  ],
)
def test_bad_flags(capsys, flags, line):
  code, _, error = call(capsys, *flags)
  assert code == 2
  assert error.startswith("error: ") and line in error


def test_bad_weights_are_one_message(tmp_path, capsys):
  shutil.copytree(COHERE, tmp_path / "model")
  path = tmp_path / "model" / "config.json"
  path.write_text(json.dumps({**json.loads(path.read_text()), "new": 1}))
  flags = (f"--workdir={tmp_path / 'run'}", "--tokenizer=byte")
  code, _, error = call(capsys, *flags, folder=tmp_path / "model")
  assert code == 2 and "new = 1: not known here" in error
  assert not (tmp_path / "run").exists()


def test_a_folder_in_use_is_refused(workdir, capsys):
  flags = (f"--workdir={workdir}", "--tokenizer=byte")
  code, _, error = call(capsys, *flags)
  assert code == 2 and "holds a run with another configuration" in error
  flags += ("--compute-dtype=float32", "--corpus=files")
  store = workdir.parent / "store"
  code, _, error = call(capsys, *flags, f"--store={store}")
  assert code == 2 and "holds checkpoints already (steps 0)" in error
