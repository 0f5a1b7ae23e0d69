"""Layers against other code bases, frozen by `fixtures/make_layers.py`."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hsa_jax.config import Mixer, lower_layers
from hsa_jax.ops import rope
from hsa_jax.ops.stick import stick_breaking_attention
from tests.interop.published_files import load, logits_of, write_folder

FIXTURES = pathlib.Path(__file__).parents[1] / "fixtures"
COHERE = {
  "architectures": ["Cohere2ForCausalLM"],
  "vocab_size": 48,
  "hidden_size": 32,
  "intermediate_size": 40,
  "num_hidden_layers": 5,
  "num_attention_heads": 4,
  "num_key_value_heads": 2,
  "sliding_window": 6,
  "logit_scale": 0.25,
  "layer_norm_eps": 1e-5,
}


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


def cohere(tmp_path):
  """The model of the frozen parameters, by the loader of published weights."""
  tensors = {
    name.removeprefix("cohere_").replace("cohere_model", "model"): value
    for name, value in frozen().items()
    if name.startswith("cohere_model")
  }
  return load(write_folder(tmp_path, COHERE, tensors))


def test_the_pattern_is_that_of_command_r(tmp_path):
  kinds = [
    layer.mixer is Mixer.WINDOW for layer in lower_layers(cohere(tmp_path).cfg)
  ]
  assert kinds == frozen()["cohere_sliding"].tolist()


@pytest.mark.parametrize("cut", [0, 4, 13])
def test_command_r_is_a_model_of_ours(tmp_path, cut):
  want = frozen()["cohere_logits"]
  got = logits_of(cohere(tmp_path), frozen()["cohere_tokens"], cut=cut)
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
