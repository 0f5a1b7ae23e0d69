"""Recurrent layers against other code; `fixtures/make_recurrent.py` made it."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from hsa_jax.config import (
  HsaConfig,
  LayerConfig,
  Mamba2Config,
  Mixer,
  Mlp,
  ModelConfig,
)
from hsa_jax.models import LanguageModel
from hsa_jax.ops.gla import gla
from hsa_jax.ops.loss import cross_entropy

FIXTURES = pathlib.Path(__file__).parents[1] / "fixtures"
MAMBA = ModelConfig(
  vocab_size=40,
  embed_dim=16,
  num_lower_layers=2,
  num_upper_layers=0,
  norm_eps=1e-5,
  layers=(LayerConfig(mixer=Mixer.MAMBA2, mlp=Mlp.NONE),),
  mamba2=Mamba2Config(head_dim=8, state_dim=6, num_groups=2, chunk_size=8),
  hsa=HsaConfig(num_groups=0),
)
# Widths of z, x, B, C and dt in `in_proj`, and of x, B, C in `conv1d`.
PROJECTED = ("gate", "value", "key", "query", "step")
FILTERED = ("value_conv", "key_conv", "query_conv")
ENDS, FILTER_ENDS = (32, 64, 76, 88), (32, 44)


@functools.cache
def frozen(prefix: str) -> dict[str, np.ndarray]:
  with np.load(FIXTURES / "recurrent.npz") as file:
    return {
      k.removeprefix(prefix): file[k] for k in file if k.startswith(prefix)
    }


def in_our_names(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Their parameters, or gradients, as those of `LanguageModel`."""

  def layers(name: str) -> np.ndarray:
    return np.stack([found[f"backbone.layers.{i}.{name}"] for i in range(2)])

  block, mixer = "lower_blocks.", "lower_blocks.attention."
  ours = {
    "embedding.embedding": found["backbone.embeddings.weight"],
    "norm.scale": found["backbone.norm_f.weight"],
    f"{block}attention_norm.scale": layers("norm.weight"),
    f"{mixer}norm.scale": layers("mixer.norm.weight"),
    f"{mixer}log_slope": layers("mixer.A_log"),
    f"{mixer}skip_gain": layers("mixer.D"),
    f"{mixer}step_bias": layers("mixer.dt_bias"),
    f"{mixer}out.kernel": layers("mixer.out_proj.weight").swapaxes(1, 2),
  }
  rows = np.split(layers("mixer.in_proj.weight"), ENDS, axis=1)
  for name, part in zip(PROJECTED, rows, strict=True):
    ours[f"{mixer}{name}.kernel"] = part.swapaxes(1, 2)
  taps = np.split(layers("mixer.conv1d.weight")[:, :, 0], FILTER_ENDS, axis=1)
  biases = np.split(layers("mixer.conv1d.bias"), FILTER_ENDS, axis=1)
  for name, tap, bias in zip(FILTERED, taps, biases, strict=True):
    ours[f"{mixer}{name}.taps"] = tap.swapaxes(1, 2)
    ours[f"{mixer}{name}.bias"] = bias
  return ours


def named(tree) -> dict[str, np.ndarray]:
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {
    jax.tree_util.keystr(path, simple=True, separator=".").removesuffix(
      ".value"
    ): np.asarray(leaf)
    for path, leaf in leaves
  }


@functools.cache
def published() -> LanguageModel:
  """Our model with their parameters, every one of them."""
  model = LanguageModel(MAMBA, rngs=nnx.Rngs(0))
  theirs = in_our_names(frozen("mamba_"))
  assert named(model).keys() == theirs.keys()
  leaves, structure = jax.tree.flatten(model)
  names = list(named(model))
  assert all(
    theirs[name].shape == leaf.shape
    for name, leaf in zip(names, leaves, strict=True)
  )
  return jax.tree.unflatten(structure, [jnp.asarray(theirs[n]) for n in names])


def test_logits_and_gradients_of_mamba2():
  """Every gradient, of the slopes and steps too."""
  found = frozen("mamba_")
  tokens = jnp.asarray(found["tokens"])

  def loss(model):
    logits = model(tokens[:, :-1])
    return jnp.mean(cross_entropy(logits, tokens[:, 1:])), logits

  step = jax.jit(jax.value_and_grad(loss, has_aux=True))
  (value, logits), grads = step(published())
  np.testing.assert_allclose(logits, found["logits"], rtol=0, atol=1e-5)
  np.testing.assert_allclose(value, found["loss"], rtol=0, atol=2e-6)
  got = named(grads)
  theirs = {
    k.removeprefix("grad_"): v
    for k, v in found.items()
    if k.startswith("grad_")
  }
  for name, want in in_our_names(theirs).items():
    assert np.abs(want).max() > 1e-4, name
    np.testing.assert_allclose(got[name], want, rtol=0, atol=1e-6, err_msg=name)


def test_their_cache_and_our_state():
  """Seventeen tokens, then twelve, which begin in the middle of a chunk."""
  found = frozen("mamba_")
  model, tokens = published(), jnp.asarray(found["tokens"])[:, :-1]

  @jax.jit
  def in_two(model, tokens):
    _, carry = model.lower(tokens[:, :17], model.init_carry(2))
    hidden, _ = model.lower(tokens[:, 17:], carry)
    return model.head(hidden)

  got = in_two(model, tokens)
  np.testing.assert_allclose(got, found["cached"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("chunk", [4, 32])
def test_gated_linear_attention(chunk):
  found = {k: jnp.asarray(v) for k, v in frozen("gla_").items()}
  names = ("query", "key", "value", "decay", "state")

  def loss(*inputs):
    out, last = gla(*inputs, chunk=chunk)
    weighted = jnp.sum(out * found["weight"])
    return weighted + jnp.sum(last * found["weight_last"]), (out, last)

  step = jax.jit(jax.grad(loss, argnums=range(5), has_aux=True))
  grads, (out, last) = step(*(found[name] for name in names))
  np.testing.assert_allclose(out, found["out"], rtol=0, atol=1e-5)
  np.testing.assert_allclose(last, found["last"], rtol=0, atol=1e-5)
  for name, gradient in zip(names, grads, strict=True):
    want = found[f"grad_{name}"]
    scale = max(1.0, float(jnp.abs(want).max()))
    np.testing.assert_allclose(
      gradient, want, rtol=0, atol=2e-6 * scale, err_msg=name
    )


def test_the_fixture_has_strong_decay():
  """Where a product of exp(b) and exp(-b) would overflow within a chunk."""
  total = np.cumsum(frozen("gla_")["decay"], axis=1)
  assert total.min() < -88
