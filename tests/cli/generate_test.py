"""The command continues a prompt as the model itself would."""

import io
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from hsa_jax.cli import generate
from hsa_jax.config import MeshConfig
from hsa_jax.data.tokenizer import load_tokenizer
from hsa_jax.memory import MemoryBytes
from hsa_jax.models import LanguageModel
from hsa_jax.parallel import make_mesh
from hsa_jax.training.checkpoint import Checkpointer, RunInfo, load_model
from hsa_jax.training.optimizer import make_optimizer
from hsa_jax.training.state import abstract_state, init_state
from tests.training.helpers import make_config

PROMPT = "abc fgh. " * 3  # several chunks of 8
NEW = 9


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
  """A workdir with one checkpoint of a random model."""
  workdir, cfg = tmp_path_factory.mktemp("run"), make_config("unused")
  tx = make_optimizer(cfg.optimizer, num_steps=1)
  mesh = make_mesh(MeshConfig())

  def build(rngs: nnx.Rngs) -> LanguageModel:
    return LanguageModel(cfg.model, rngs=rngs)

  abstract = abstract_state(build, tx, mesh=mesh)
  with jax.set_mesh(mesh):
    state = init_state(build, tx, seed=0, abstract=abstract)
  fingerprint = load_tokenizer("byte").fingerprint
  saver = Checkpointer(workdir, RunInfo(cfg, "byte", fingerprint))
  saver.save(1, state)
  saver.close()
  return workdir


@pytest.fixture
def ask(checkpoint, capsys):
  """Runs the command; code, stdout and stderr."""

  def call(*flags, prompt=f"--prompt={PROMPT}"):
    argv = [f"--checkpoint={checkpoint}", f"--max-tokens={NEW}", prompt]
    code = generate.main([*argv, *flags])
    return code, *capsys.readouterr()

  return call


def greedy(workdir) -> str:
  """The continuation by one full forward pass per token."""
  model, _, _ = load_model(workdir)
  tokenizer = load_tokenizer("byte")
  tokens = list(tokenizer.encode(PROMPT))
  forward = jax.jit(lambda model, tokens: model(tokens))
  for _ in range(NEW):
    row = np.zeros((1, len(PROMPT) + NEW), np.int32)
    row[0, : len(tokens)] = tokens
    logits = forward(model, row)[0, len(tokens) - 1, : tokenizer.vocab_size]
    tokens.append(int(jnp.argmax(logits)))
  return tokenizer.decode(tokens[len(PROMPT) :])


def test_greedy_text_is_that_of_the_full_forward_pass(ask, checkpoint):
  code, out, err = ask("--no-stop-at-eos")
  assert code == 0
  assert out == greedy(checkpoint) + "\n"
  assert "prefill 27 tokens" in err
  assert "tokens/s" in err and "ms/token" in err


def test_every_home_gives_the_same_text(ask, tmp_path):
  homes = ("host", "device", "disk", "sharded", "auto")
  runs = [
    ask(
      "--no-stop-at-eos",
      f"--memory={home}",
      f"--memory-folder={tmp_path}",
      "--temperature=2",
    )
    for home in homes
  ]
  assert [code for code, _, _ in runs] == [0] * len(homes)
  assert len({out for _, out, _ in runs}) == 1
  # Chunks of the prompt and of what follows it, in one plan.
  chunks = (len(PROMPT) + NEW) // 8
  several = jax.device_count() > 1
  named = ("host", "device", "disk", "sharded")
  named += ("sharded" if several else "device",)
  for (_, _, err), home in zip(runs, named, strict=True):
    assert f"memory={home}: {chunks} chunks, " in err
  assert not list(tmp_path.iterdir())  # the file of the disk home is gone


def test_rounded_keys_and_values_are_named(ask):
  code, _, err = ask("--kv-dtype=int8")
  assert code == 0 and "keys and values as int8" in err


def test_a_home_that_does_not_fit_is_refused(ask, monkeypatch):
  free = MemoryBytes(device=100, host=100, disk=10**9)
  monkeypatch.setattr(generate, "available", lambda folder: free)
  code, out, err = ask("--memory=host")
  assert (code, out) == (2, "")
  assert "--memory=host needs" in err and "--memory=disk fits" in err
  assert ask("--memory=auto")[0] == 0


def test_draws_depend_on_the_seed_alone(ask):
  flags = ("--temperature=2", "--top-k=200", "--top-p=0.99")
  texts = [ask(*flags, f"--seed={seed}")[1] for seed in (1, 1, 2)]
  assert texts[0] == texts[1] != texts[2]


def test_prompt_from_a_file_or_stdin(ask, tmp_path, monkeypatch):
  (tmp_path / "prompt.txt").write_text(PROMPT)
  stdin = io.TextIOWrapper(io.BytesIO(PROMPT.encode()))
  monkeypatch.setattr(sys, "stdin", stdin)
  texts = [
    ask(prompt=prompt)[1]
    for prompt in (
      f"--prompt={PROMPT}",
      f"--prompt-file={tmp_path / 'prompt.txt'}",
      "--prompt-file=-",
    )
  ]
  assert texts[0] == texts[1] == texts[2]


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (["--max-tokens=0"], "--max-tokens=0: must be at least 1"),
    (["--max-tokens=x"], "invalid int value: 'x'"),
    (["--temperature=-1"], "--temperature=-1.0: must not be negative"),
    (["--temperature=nan"], "--temperature=nan"),
    (["--top-k=-1"], "--top-k=-1: must not be negative"),
    (["--top-p=0"], "--top-p=0.0: must lie in (0, 1]"),
    (["--seed=-1"], "--seed=-1: must not be negative"),
    (["--prompt="], "--prompt: is empty"),
    (["--prompt-file=x"], "either --prompt=TEXT or --prompt-file=FILE"),
    (["--checkpoint=/no/such/run"], "/no/such/run: no such folder"),
    (["--checkpoint="], "--checkpoint is missing"),
    (["--memory=dsk"], "did you mean 'disk'"),
    (["--memory=host,disk"], "takes one of auto, device, sharded"),
    (["--kv-place=pinned_host"], "add --memory=sharded"),
    (["--memory=sharded", "--kv-place=ram"], "not one of device, pinned_host"),
    (["--memory=device", "--kv-dtype=int8"], "only host and disk store"),
    (["--memory=sharded", "--kv-dtype=int8"], "only host and disk store"),
    (["--memory-folder=/no/such"], "--memory-folder=/no/such: no such folder"),
    (["--promt=x"], "--promt=x"),
  ],
)
def test_bad_flags(ask, flags, message):
  code, out, err = ask(*flags)
  assert (code, out) == (2, "")
  assert err.startswith("error: ") and message in err
  assert len(err.strip().splitlines()) <= 2


@pytest.mark.parametrize(
  ("data", "message"),
  [(None, "No such file"), (b"ab\xff", "byte 2 is not UTF-8"), (b"", "empty")],
)
def test_bad_prompt_files(ask, tmp_path, data, message):
  path = tmp_path / "prompt.txt"
  if data is not None:
    path.write_bytes(data)
  code, out, err = ask(prompt=f"--prompt-file={path}")
  assert (code, out) == (2, "")
  assert f"--prompt-file={path}" in err and message in err


def test_help_shows_commands_to_copy(capsys):
  with pytest.raises(SystemExit) as stop:
    generate.main(["--help"])
  assert stop.value.code == 0
  out = capsys.readouterr().out
  assert "--checkpoint=runs/quickstart" in out and "--top-p" in out


@pytest.mark.parametrize("length", [1, 8, 9, 100, 10**6])
def test_prefill_program_fits_the_prompt(checkpoint, length):
  prefill = generate.make_prefill(load_model(checkpoint)[0], length)
  assert prefill.segment % 8 == 0
  assert min(length, 4096) <= prefill.segment <= max(2 * length + 8, 4096)
