"""Small models for tests, built once, and their stages compiled once."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from hsa_jax.config import (
  GlaConfig,
  HsaConfig,
  Landmark,
  LayerConfig,
  Mamba2Config,
  Mixer,
  Mlp,
  ModelConfig,
  Position,
  RetrievalHeads,
  Weighting,
)
from hsa_jax.models import LanguageModel
from hsa_jax.models.hsa import SequenceMemory
from hsa_jax.types import Limits, Tokens

TINY = ModelConfig(
  vocab_size=40,
  embed_dim=16,
  num_lower_layers=2,
  num_upper_layers=2,
  num_heads=4,
  num_kv_heads=2,
  head_dim=4,
  mlp_dim=24,
  window_size=6,
  init_scale=0.3,
  hsa=HsaConfig(
    num_groups=2,
    chunk_size=4,
    top_k=2,
    num_memory_heads=2,
    landmark_dim=8,
    encoder_mlp_dim=24,
  ),
)


FULL = LayerConfig(mixer=Mixer.FULL, position=Position.ABSOLUTE_ROPE)
NOPE = LayerConfig(mixer=Mixer.FULL, position=Position.NONE)
STICK = LayerConfig(mixer=Mixer.STICK_BREAKING, position=Position.NONE)
LOCAL = LayerConfig()
MAMBA = LayerConfig(mixer=Mixer.MAMBA2, mlp=Mlp.NONE)
GLA = LayerConfig(mixer=Mixer.GLA)
# Chunks shorter than most sequences of the tests.
TINY_MAMBA2 = Mamba2Config(head_dim=8, state_dim=6, num_groups=2, chunk_size=4)
TINY_GLA = GlaConfig(num_heads=2, gate_rank=3, chunk_size=4)


def tiny(**changes) -> ModelConfig:
  """`TINY` with fields changed; `hsa_*` names fields of the memory."""
  of_hsa = {k[4:]: v for k, v in changes.items() if k.startswith("hsa_")}
  of_model = {k: v for k, v in changes.items() if not k.startswith("hsa_")}
  hsa = dataclasses.replace(TINY.hsa, **of_hsa)
  # Their sizes belong to layers of their kind.
  present = {layer.mixer for layer in of_model.get("layers", ())}
  if Mixer.MAMBA2 in present:
    of_model.setdefault("mamba2", TINY_MAMBA2)
  if Mixer.GLA in present:
    of_model.setdefault("gla", TINY_GLA)
  return dataclasses.replace(TINY, hsa=hsa, **of_model)


# Two retrievals, each read by two layers; what GCA and DRT ask for.
DRT = tiny(
  num_lower_layers=1,
  num_upper_layers=0,
  position=Position.ALIBI,
  qk_norm=False,
  hsa_num_groups=4,
  hsa_groups_per_retrieval=2,
  hsa_block_window=True,
  hsa_landmark=Landmark.TOKEN,
  hsa_tokens_per_retrieval=TINY.hsa.chunk_size,
  hsa_landmark_projection=False,
  hsa_landmark_dim=TINY.embed_dim,
  hsa_retrieval_heads=RetrievalHeads.SINGLE,
  hsa_weighting=Weighting.SOFTMAX,
  hsa_sink=1,
  hsa_qk_norm=False,
  hsa_encoder_prenorm=True,
)


@functools.cache
def build(cfg: ModelConfig, seed: int = 0) -> LanguageModel:
  """One model per configuration, shared by all tests: do not change it."""
  return LanguageModel(cfg, rngs=nnx.Rngs(seed))


def random_tokens(length: int, batch: int = 1, seed: int = 1) -> Tokens:
  return jax.random.randint(jax.random.key(seed), (batch, length), 0, 40)


def random_hidden(length: int) -> jax.Array:
  return jax.random.normal(jax.random.key(0), (1, length, 16))


@jax.jit
def run(model, tokens, limits=Limits(), noise_key=None):
  return model(tokens, limits=limits, noise_key=noise_key)


@jax.jit
def hidden_of(model, tokens):
  return model.hidden(tokens)


@jax.jit
def lower(model, tokens, carry, position):
  return model.lower(tokens, carry, position=position)


@jax.jit
def encode(model, hidden):
  return model.encode(hidden)


@jax.jit
def upper(model, hidden, chunks, position):
  carry = model.init_upper_carry(*hidden.shape[:2])
  memory = SequenceMemory(chunks)
  return model.upper(hidden, memory, carry, position=position)[0]


def stretches(model, tokens, cuts):
  """Both decoders in pieces that begin at the cuts, states carried along."""
  batch, length = tokens.shape
  lower, upper = model.init_carry(batch, length), None
  upper = model.init_upper_carry(batch, length)
  hidden, outputs = [], []
  places = list(zip([0, *cuts], [*cuts, length], strict=True))
  for start, stop in places:
    reuse = model.num_reused(start, stop - start)
    part, lower = lower_stretch(
      model, tokens[:, start:stop], lower, start, reuse=reuse
    )
    hidden.append(part)
  memory = encode(model, jnp.concatenate(hidden, axis=1))
  for part, (start, stop) in zip(hidden, places, strict=True):
    reuse = model.num_reused(start, stop - start)
    part, upper = upper_stretch(model, part, memory, upper, start, reuse=reuse)
    outputs.append(part)
  return jnp.concatenate(outputs, axis=1)


@functools.partial(jax.jit, static_argnames="reuse")
def lower_stretch(model, tokens, carry, position, *, reuse):
  return model.lower(tokens, carry, position=position, reuse=reuse)


@functools.partial(jax.jit, static_argnames="reuse")
def upper_stretch(model, hidden, chunks, carry, position, *, reuse):
  memory = SequenceMemory(chunks)
  return model.upper(hidden, memory, carry, position=position, reuse=reuse)


def assert_close(got, expected, tolerance: float = 1e-5) -> None:
  """Equal to `tolerance` of the largest expected magnitude, at least 1."""
  scale = max(1.0, float(jnp.abs(expected).max()))
  np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * scale)
