"""Tiny models, stores and sessions for the tests of this room."""

import functools
import pathlib

import jax
import numpy as np
from flax import nnx

from hsa_jax.config import (
  Config,
  DataConfig,
  HsaConfig,
  Landmark,
  MeshConfig,
  ModelConfig,
  Position,
  Weighting,
  with_overrides,
)
from hsa_jax.data.corpora import Corpus, Document
from hsa_jax.data.store import TokenStore, build_store
from hsa_jax.data.tokenizer import load_tokenizer
from hsa_jax.evaluation import (
  ResultStore,
  RunInfo,
  Session,
  Settings,
  receptive_field,
)
from hsa_jax.evaluation.lengths import SampleCount
from hsa_jax.models import LanguageModel
from hsa_jax.parallel import make_mesh
from hsa_jax.training.checkpoint import Checkpointer
from hsa_jax.training.checkpoint import RunInfo as TrainingInfo
from hsa_jax.training.optimizer import make_optimizer
from hsa_jax.training.state import abstract_state, init_state

HSA = HsaConfig(
  num_groups=1,
  chunk_size=4,
  top_k=2,
  num_memory_heads=1,
  landmark_dim=16,
  encoder_layers=1,
  encoder_mlp_dim=32,
)
MODEL = ModelConfig(
  vocab_size=264,
  embed_dim=32,
  num_lower_layers=2,
  num_upper_layers=2,
  num_heads=2,
  num_kv_heads=1,
  head_dim=16,
  mlp_dim=48,
  window_size=6,
  init_scale=0.2,  # far from uniform outputs
  hsa=HSA,
)


def model_config(model: dict | None = None, **hsa) -> ModelConfig:
  """The tiny model with some fields changed, read as a config file's are."""
  paths = {f"model.{name}": value for name, value in (model or {}).items()}
  paths |= {f"model.hsa.{name}": value for name, value in hsa.items()}
  cfg = with_overrides(Config(model=MODEL), paths)
  return cfg.model


# Landmark tokens retrieve, and two groups read what each finds (GCA).
LANDMARKS = model_config(
  {"num_upper_layers": 0, "position": Position.ALIBI},
  num_groups=2,
  groups_per_retrieval=2,
  block_window=True,
  landmark=Landmark.TOKEN,
  tokens_per_retrieval=HSA.chunk_size,
  weighting=Weighting.SOFTMAX,
)


@functools.cache
def build_model(cfg: ModelConfig = MODEL) -> LanguageModel:
  return jax.jit(lambda: LanguageModel(cfg, rngs=nnx.Rngs(0)))()


def random_tokens(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, shape, np.int32)


def make_store(path: pathlib.Path, size: int = 3_000) -> TokenStore:
  """A byte store of random letters; `size` bytes in the test split."""
  rng = np.random.default_rng(0)
  letters = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz   ", np.uint8)
  docs = []
  for split, count in {"train": 2_000, "valid": 500, "test": size}.items():
    text = letters[rng.integers(0, len(letters), count)].tobytes().decode()
    docs.append(Document(split, split, count, lambda text=text: text))
  corpus = Corpus("files", "random letters", tuple(docs))
  return build_store(corpus, load_tokenizer("byte"), path)


def make_checkpoint(folder: pathlib.Path, cfg: ModelConfig = MODEL) -> None:
  """The workdir of a training run without a step; the store lies beside it."""
  store = folder.parent / f"{folder.name}-store"
  make_store(store)
  whole = Config(model=cfg, data=DataConfig(corpus="files", store=str(store)))
  tx, mesh = (
    make_optimizer(whole.optimizer, num_steps=1),
    make_mesh(MeshConfig()),
  )

  def build(rngs: nnx.Rngs) -> LanguageModel:
    return LanguageModel(cfg, rngs=rngs)

  abstract = abstract_state(build, tx, mesh=mesh)
  with jax.set_mesh(mesh):
    state = init_state(build, tx, seed=0, abstract=abstract)
  tokenizer = load_tokenizer("byte")
  info = TrainingInfo(whole, tokenizer.spec, tokenizer.fingerprint)
  saver = Checkpointer(folder, info)
  saver.save(1, state)
  saver.close()


def make_info(model: LanguageModel, label: str = "tiny") -> RunInfo:
  return RunInfo(
    label=label,
    checkpoint=f"runs/{label}",
    step=7,
    config_hash="0123456789ab",
    tokenizer="fingerprint",
    store="hash",
    seed=0,
    train_length=256,
    num_parameters=1_234,
    receptive_field=receptive_field(model.cfg),
  )


def make_session(
  folder: pathlib.Path,
  *,
  cfg: ModelConfig = MODEL,
  lengths: tuple[int, ...] = (256,),
  samples: int = 3,
  **settings,
) -> Session:
  """A session of a random model; store and results lie in `folder`."""
  store = folder / "store"
  opened = TokenStore.open(store) if store.exists() else make_store(store)
  model = build_model(cfg)
  defaults = {"segment": 64, "batch": 2, **settings}
  return Session(
    model,
    Config(model=cfg, data=DataConfig(corpus="files", store=str(store))),
    load_tokenizer("byte"),
    opened,
    Settings(lengths, (SampleCount(1, samples),), **defaults),
    ResultStore(folder / "eval", make_info(model)),
  )
