"""Window attention: the literal mask, caches, schedules, gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hsa_jax.ops import reference
from hsa_jax.ops.window import (
  alibi_slopes,
  choose_window,
  window_attention,
)


def inputs(length, past=0, heads=4, kv_heads=2, dim=8):
  keys = jax.random.split(jax.random.key(0), 3)
  query = jax.random.normal(keys[0], (2, length, heads, dim))
  key = jax.random.normal(keys[1], (2, past + length, kv_heads, dim))
  value = jax.random.normal(keys[2], (2, past + length, kv_heads, dim))
  return query, key, value


def test_window_counts_the_token_itself():
  """With one-hot values the output shows which keys a query reads."""
  query = jnp.zeros((1, 5, 1, 5))
  value = jnp.eye(5)[None, :, None, :]
  got = window_attention(query, value, value, window=3)[0, :, 0]
  expected = [
    [1, 0, 0, 0, 0],
    [1 / 2, 1 / 2, 0, 0, 0],
    [1 / 3, 1 / 3, 1 / 3, 0, 0],
    [0, 1 / 3, 1 / 3, 1 / 3, 0],
    [0, 0, 1 / 3, 1 / 3, 1 / 3],
  ]
  np.testing.assert_allclose(got, expected, atol=1e-6)


@jax.jit
def attend_reference(query, key, value, window):
  return reference.window_attention(query, key, value, window=window)


@functools.partial(jax.jit, static_argnums=3)
def attend_banded(query, key, value, windows):
  return [window_attention(query, key, value, window=w) for w in windows]


@pytest.mark.parametrize("past", [0, 1, 40])
@pytest.mark.parametrize("length", [1, 5, 33, 97])
def test_banded_equals_reference(length, past):
  windows = (1, 2, 7, 32, 64, 500)
  qkv = inputs(length, past)
  for window, got in zip(windows, attend_banded(*qkv, windows), strict=True):
    expected = attend_reference(*qkv, jnp.int32(window))
    np.testing.assert_allclose(got, expected, atol=2e-6, err_msg=str(window))


@pytest.mark.parametrize("length", [5, 97])
def test_gradients_equal_reference(length):
  query, key, value = inputs(length, past=10)

  def loss(query, key, value, implementation):
    out = window_attention(
      query, key, value, window=9, implementation=implementation
    )
    return jnp.sum(jnp.sin(out))

  gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 2)), static_argnums=3)
  got = gradient(query, key, value, "banded")
  for a, b in zip(got, gradient(query, key, value, "reference"), strict=True):
    np.testing.assert_allclose(a, b, atol=3e-6)


@pytest.mark.parametrize("length", [3, 70])
def test_empty_cache_slots_are_never_read(length):
  query, key, value = inputs(length, past=20)
  got = window_attention(
    query, key, value, window=16, first_valid=jnp.int32(13)
  )
  expected = window_attention(query, key[:, 13:], value[:, 13:], window=16)
  np.testing.assert_allclose(got, expected, atol=2e-6)


def test_a_limit_narrows_the_window():
  query, key, value = inputs(50)
  got = window_attention(query, key, value, window=32, limit=jnp.int32(5))
  expected = window_attention(query, key, value, window=5)
  np.testing.assert_allclose(got, expected, atol=2e-6)


def slopes():
  return jnp.asarray(alibi_slopes(4))


def test_alibi_by_hand():
  """Head h of N falls by 2^(-8 (h + 1) / N) a token."""
  np.testing.assert_allclose(alibi_slopes(4), [1 / 4, 1 / 16, 1 / 64, 1 / 256])
  query = jnp.zeros((1, 3, 4, 3))
  value = jnp.broadcast_to(jnp.eye(3)[None, :, None], (1, 3, 4, 3))
  got = window_attention(query, value, value, window=3, slopes=slopes())
  share = np.exp(-np.arange(3)[::-1] / 4)
  np.testing.assert_allclose(got[0, 2, 0], share / share.sum(), atol=1e-6)


@pytest.mark.parametrize(("length", "past"), [(5, 0), (33, 7), (70, 40)])
def test_alibi_of_bands_is_that_of_the_mask(length, past):
  qkv = inputs(length, past)

  def loss(query, key, value, implementation):
    out = window_attention(
      query,
      key,
      value,
      window=16,
      slopes=slopes(),
      implementation=implementation,
    )
    return jnp.sum(jnp.sin(out)), out

  gradient = jax.jit(
    jax.grad(loss, argnums=(0, 1, 2), has_aux=True), static_argnums=3
  )
  for a, b in zip(
    jax.tree.leaves(gradient(*qkv, "banded")),
    jax.tree.leaves(gradient(*qkv, "reference")),
    strict=True,
  ):
    np.testing.assert_allclose(a, b, atol=3e-6)


def test_splash_refuses_alibi():
  with pytest.raises(ValueError, match="adds nothing to its logits"):
    window_attention(
      *inputs(4), window=2, slopes=slopes(), implementation="splash"
    )
  choice = choose_window(
    "auto", platform="tpu", length=512, has_limit=False, has_slopes=True
  )
  assert choice.name == "banded" and "ALiBi" in choice.reason


def test_unknown_implementation_is_an_error():
  with pytest.raises(ValueError, match="use one of reference, banded, splash"):
    window_attention(*inputs(4), window=2, implementation="flash")
