"""Layers against other code bases; `tests/fixtures/make_layers.py` made them.

Command R7B's blocks are not ours: attention and MLP side by side behind one
LayerNorm, and scaled logits. So its model is put together here, of our
attention layers with its parameters.
"""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from hsa_jax.config import LayerConfig, Mixer, ModelConfig, Position, layers_of
from hsa_jax.models.mixers import MIXERS
from hsa_jax.ops import rope
from hsa_jax.ops.stick import stick_breaking_attention
from hsa_jax.types import Limits

FIXTURES = pathlib.Path(__file__).parents[1] / "fixtures"
COHERE = ModelConfig(
  vocab_size=48,
  embed_dim=32,
  num_heads=4,
  num_kv_heads=2,
  head_dim=8,
  window_size=6,
  qk_norm=False,
  rope_theta=10_000.0,
  layers=(
    *(LayerConfig(position=Position.RELATIVE_ROPE),) * 3,
    LayerConfig(mixer=Mixer.FULL, position=Position.NONE),
  ),
)
LOGIT_SCALE = 0.25


@functools.cache
def frozen() -> dict[str, np.ndarray]:
  with np.load(FIXTURES / "layers.npz") as file:
    return dict(file)


@pytest.mark.parametrize("i", range(4))
def test_yarn(i):
  dim, theta, factor, length, fast, slow, attention = frozen()["yarn_settings"][
    i
  ]
  yarn = rope.Yarn(factor, int(length), fast, slow, attention)
  got = rope.frequencies(int(dim), theta=theta, yarn=yarn)
  np.testing.assert_allclose(got, frozen()[f"yarn_{i}"], rtol=0, atol=1e-7)
  np.testing.assert_allclose(
    yarn.amplitude, frozen()[f"yarn_{i}_factor"], rtol=1e-7
  )


def test_yarn_turns_what_is_rotated():
  """Known and traced positions, and the factor on both sides of a logit."""
  yarn = rope.Yarn(4.0, 64)
  x = jax.random.normal(jax.random.key(0), (1, 9, 2, 8))
  turn = functools.partial(rope.rotate, theta=1e4, yarn=yarn)
  known, traced = turn(x, np.arange(9)), jax.jit(turn)(x, jnp.arange(9))
  np.testing.assert_allclose(known, traced, atol=1e-5)
  np.testing.assert_allclose(known[:, 0], x[:, 0] * yarn.amplitude, atol=1e-6)
  plain = rope.rotate(x, np.arange(9), theta=1e4)
  assert float(jnp.abs(known / yarn.amplitude - plain).max()) > 0.1


def attention_with(layer, parameters: dict[str, np.ndarray]) -> nnx.Module:
  """Our layer with their projections.

  They rotate neighbours (2i, 2i + 1), we rotate halves (i, i + H/2): their even
  rows of a head come first here.
  """
  cfg = layer.cfg
  module = MIXERS[layer.mixer].module(cfg, rngs=nnx.Rngs(0))

  def halves(matrix: np.ndarray) -> np.ndarray:
    heads = matrix.reshape(-1, cfg.head_dim // 2, 2, matrix.shape[1])
    return heads.swapaxes(1, 2).reshape(matrix.shape)

  for name, change in (("q", halves), ("k", halves), ("v", None), ("o", None)):
    matrix = parameters[f"self_attn.{name}_proj.weight"]
    matrix = change(matrix) if change else matrix
    target = {"q": module.query, "k": module.key, "v": module.value}
    target.get(name, module.out).kernel = nnx.Param(jnp.asarray(matrix.T))
  return module


def layer_norm(x, scale):
  centred = x - x.mean(-1, keepdims=True)
  return (
    centred
    * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    * (scale[None, None])
  )


def cohere(tokens, cut: int | None = None):
  """Logits; with `cut` in two stretches, through the caches of our layers."""
  found = frozen()
  model = {
    k.removeprefix("cohere_model."): v
    for k, v in found.items()
    if k.startswith("cohere_model.")
  }
  count = len(found["cohere_sliding"])
  x = jnp.asarray(model["embed_tokens.weight"])[tokens]
  length = x.shape[1]
  for i, layer in enumerate(layers_of(COHERE, 0, count)):
    own = {
      k.removeprefix(f"layers.{i}."): v
      for k, v in model.items()
      if k.startswith(f"layers.{i}.")
    }
    module = attention_with(layer, own)
    normed = layer_norm(x, own["input_layernorm.weight"])
    state = module.init_state(x.shape[0], length) if cut else None
    parts = []
    for start, stop in ((0, cut or 0), (cut or 0, length)):
      if start < stop:
        part, state = module(normed[:, start:stop], state, start, Limits())
        parts.append(part)
    gate = normed @ own["mlp.gate_proj.weight"].T
    up = normed @ own["mlp.up_proj.weight"].T
    mlp = (jax.nn.silu(gate) * up) @ own["mlp.down_proj.weight"].T
    x = x + jnp.concatenate(parts, axis=1) + mlp
  x = layer_norm(x, model["norm.weight"])
  return LOGIT_SCALE * (x @ model["embed_tokens.weight"].T)


def test_the_pattern_is_that_of_command_r():
  kinds = [
    layer.mixer is Mixer.WINDOW
    for layer in layers_of(COHERE, 0, len(frozen()["cohere_sliding"]))
  ]
  assert kinds == frozen()["cohere_sliding"].tolist()


@pytest.mark.parametrize("cut", [None, 4, 13])
def test_command_r_of_our_layers(cut):
  want = frozen()["cohere_logits"]
  got = cohere(frozen()["cohere_tokens"], cut)
  assert np.abs(want).max() > 0.5
  np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)


def test_stick_breaking_and_its_gradient():
  found = {k: jnp.asarray(v) for k, v in frozen().items() if "stick" in k}
  inputs = [found[f"stick_{name}"] for name in ("query", "key", "value")]
  out = stick_breaking_attention(*inputs)
  np.testing.assert_allclose(out, found["stick_out"], rtol=0, atol=2e-6)

  def loss(*inputs):
    return jnp.sum(stick_breaking_attention(*inputs) * found["stick_weight"])

  got = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(*inputs)
  for name, gradient in zip(("query", "key", "value"), got, strict=True):
    want = found[f"stick_grad_{name}"]
    np.testing.assert_allclose(gradient, want, rtol=0, atol=1e-5)
