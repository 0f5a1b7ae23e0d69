"""A model that compiles at once, a small store, and configurations."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np
from flax import nnx

from hsa_jax import config as config_lib
from hsa_jax.config import (
  Config,
  DataConfig,
  Haystack,
  HsaConfig,
  ModelConfig,
  OptimizerConfig,
  SourceConfig,
  StageConfig,
  Task,
  TrainConfig,
)
from hsa_jax.data.corpora import Corpus, Document
from hsa_jax.data.pipeline import TrainData
from hsa_jax.data.store import TokenStore, build_store
from hsa_jax.data.tokenizer import load_tokenizer
from hsa_jax.training.checkpoint import RunInfo
from hsa_jax.training.inputs import Inputs
from hsa_jax.training.metrics import read_metrics

ROOT = pathlib.Path(__file__).parents[2]
VOCAB = 264


class Bigram(nnx.Module):
  """Next-token logits from the token and the mean of those before it."""

  def __init__(self, *, rngs: nnx.Rngs):
    self.embedding = nnx.Embed(VOCAB, 16, rngs=rngs)
    self.norm = nnx.RMSNorm(16, rngs=rngs)
    self.output = nnx.Linear(16, VOCAB, rngs=rngs)

  def __call__(self, tokens, *, limits, noise_key=None):
    del limits, noise_key
    x = self.embedding(tokens)
    count = jax.numpy.arange(1, x.shape[1] + 1)[None, :, None]
    return self.output(self.norm(x + x.cumsum(axis=1) / count))


def text(size: int, seed: int) -> str:
  rng = np.random.default_rng(seed)
  return bytes(rng.choice(list(b"abcde fgh."), size).astype(np.uint8)).decode()


def make_store(path, tokenizer=None) -> TokenStore:
  documents = []
  for seed, split in enumerate(("train", "valid", "test")):
    body = text(4_000, seed)
    documents.append(Document(split, split, len(body), lambda body=body: body))
  corpus = Corpus("files", "tests", tuple(documents))
  return build_store(corpus, tokenizer or load_tokenizer("byte"), path)


def make_config(store: str = "", **train) -> Config:
  """Two stages of different shape, six steps each, answers in the second."""
  needles = SourceConfig(task=Task.NIAH, haystack=Haystack.NOISE)
  fields = {"checkpoint_every": 4, "log_every": 1, "eval_batches": 1}
  hsa = HsaConfig(
    chunk_size=8,
    top_k=2,
    num_memory_heads=1,
    landmark_dim=8,
    encoder_mlp_dim=16,
  )
  return Config(
    model=ModelConfig(
      vocab_size=VOCAB,
      embed_dim=16,
      num_lower_layers=1,
      num_upper_layers=1,
      num_heads=2,
      num_kv_heads=2,
      head_dim=8,
      mlp_dim=16,
      window_size=8,
      hsa=hsa,
    ),
    data=DataConfig(
      corpus="files",
      store=store,
      stages=(
        StageConfig("text", 6, 32, 4),
        StageConfig("needles", 6, 192, 2, (SourceConfig(), needles)),
      ),
    ),
    optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=3),
    train=TrainConfig(**{**fields, "answer_loss_weight": 1.0, **train}),
  )


def make_inputs(cfg: Config, folder) -> Inputs:
  path = pathlib.Path(folder) / "store"
  tokenizer = load_tokenizer("byte")
  store = TokenStore.open(path) if path.exists() else make_store(path)
  return Inputs(
    build=lambda rngs: Bigram(rngs=rngs),
    data=TrainData(cfg, store, tokenizer),
    info=RunInfo(cfg, tokenizer.spec, tokenizer.fingerprint),
    bytes_per_token=1.0,
  )


def losses(workdir) -> dict[int, float]:
  """Training loss by step, exact."""
  return values(workdir, "train/loss_nats")


def write_config(path, cfg: Config) -> pathlib.Path:
  """A config file for the command line."""
  path = pathlib.Path(path)
  path.write_text(
    "from hsa_jax import config\n"
    f"VALUES = {json.loads(config_lib.to_json(cfg))!r}\n"
    "def get_config():\n"
    "  return config.to_config_dict(config.from_dict(VALUES))\n"
  )
  return path


def command(*arguments: str) -> list[str]:
  return [sys.executable, str(ROOT / "train.py"), *map(str, arguments)]


def environment(cache) -> dict[str, str]:
  """For subprocesses: CPU, the package, a cache of compiled programs."""
  return {
    **os.environ,
    "JAX_PLATFORMS": "cpu",
    "PYTHONPATH": str(ROOT),
    "JAX_COMPILATION_CACHE_DIR": str(cache),
  }


def run_train(*arguments, cache, timeout=120) -> subprocess.CompletedProcess:
  return subprocess.run(
    command(*arguments),
    env=environment(cache),
    capture_output=True,
    text=True,
    timeout=timeout,
  )


def start_job(
  config_file, cache, workdir, *, count: int, devices: int = 1
) -> list[subprocess.Popen]:
  """The processes of one job, so many devices each."""
  with socket.socket() as server:
    server.bind(("localhost", 0))
    address = f"localhost:{server.getsockname()[1]}"
  jobs = []
  for i in range(count):
    env = {**environment(cache), "JAX_NUM_CPU_DEVICES": str(devices)}
    if count > 1:
      env["JAX_COORDINATOR_ADDRESS"] = address
      env |= {"JAX_NUM_PROCESSES": str(count), "JAX_PROCESS_ID": str(i)}
    arguments = (f"--config={config_file}", f"--workdir={workdir}")
    jobs.append(
      subprocess.Popen(
        command(*arguments), env=env, stderr=subprocess.PIPE, text=True
      )
    )
  return jobs


def values(workdir, name: str) -> dict[int, float]:
  """One metric by step, exact."""
  return {r["step"]: r[name] for r in read_metrics(workdir) if name in r}
