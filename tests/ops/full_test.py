"""Attention to a whole context: literal weights, caches, gradients, memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hsa_jax.ops import full, reference, stick, tiles
from hsa_jax.ops.full import choose_full, full_attention
from hsa_jax.ops.stick import stick_breaking_attention, suffix_sum

OPS = {
  "full": (full_attention, jax.jit(reference.full_attention)),
  "stick": (
    stick_breaking_attention,
    jax.jit(reference.stick_breaking_attention),
  ),
}


def inputs(length, *, past=0, room=0, heads=4, kv_heads=2, dim=8, scale=1.0):
  """Queries of `length` tokens behind `past` others, and a cache's room."""
  keys = jax.random.split(jax.random.key(0), 3)
  size = past + length + room
  query = jax.random.normal(keys[0], (2, length, heads, dim)) * scale
  key = jax.random.normal(keys[1], (2, size, kv_heads, dim)) * scale
  value = jax.random.normal(keys[2], (2, size, kv_heads, dim))
  return query, key, value


@pytest.fixture
def small_blocks(monkeypatch):
  """Blocks of 4 by 4, so that short sequences have many."""
  monkeypatch.setattr(tiles, "ROWS", 4)
  monkeypatch.setattr(tiles, "_AREA", 16)


def test_weights_of_full_attention_by_hand():
  """With one-hot values the output shows which keys a query reads."""
  query, value = jnp.zeros((1, 3, 1, 3)), jnp.eye(3)[None, :, None]
  got = full_attention(query, value, value)[0, :, 0]
  expected = [[1, 0, 0], [1 / 2, 1 / 2, 0], [1 / 3, 1 / 3, 1 / 3]]
  np.testing.assert_allclose(got, expected, atol=1e-6)


def test_weights_of_stick_breaking_by_hand():
  """A score of zero breaks half off what is left; a token skips itself."""
  query, value = jnp.zeros((1, 4, 1, 4)), jnp.eye(4)[None, :, None]
  got = stick_breaking_attention(query, value, value)[0, :, 0]
  expected = [
    [0, 0, 0, 0],
    [1 / 2, 0, 0, 0],
    [1 / 4, 1 / 2, 0, 0],
    [1 / 8, 1 / 4, 1 / 2, 0],
  ]
  np.testing.assert_allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize(
  ("length", "past", "room"),
  [(1, 0, 0), (5, 0, 0), (23, 0, 0), (1, 9, 6), (7, 10, 9)],
)
@pytest.mark.usefixtures("small_blocks")
def test_blocked_equals_reference(op, length, past, room):
  attend, twin = OPS[op]
  qkv = inputs(length, past=past, room=room)
  position = past if past or room else 0
  got = attend(*qkv, position=position, implementation="blocked")
  np.testing.assert_allclose(got, twin(*qkv, position=position), atol=2e-6)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("length", [300, 513])
def test_blocks_of_their_own_size(op, length):
  attend, twin = OPS[op]
  qkv = inputs(length, heads=2, kv_heads=1)
  got = jax.jit(attend)(*qkv)
  np.testing.assert_allclose(got, jax.jit(twin)(*qkv), atol=3e-6)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize(("length", "past", "room"), [(23, 0, 0), (6, 3, 5)])
@pytest.mark.usefixtures("small_blocks")
def test_gradients_equal_reference(op, length, past, room):
  qkv = inputs(length, past=past, room=room)

  def gradient(attend):
    def loss(*qkv):
      return jnp.sum(jnp.sin(attend(*qkv, position=past)))

    return jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(*qkv)

  attend, twin = OPS[op]
  blocked = functools.partial(attend, implementation="blocked")
  for a, b in zip(gradient(blocked), gradient(twin), strict=True):
    np.testing.assert_allclose(a, b, atol=5e-6)


@pytest.mark.parametrize("op", OPS)
def test_room_of_a_cache_is_never_read(op):
  attend, _ = OPS[op]
  query, key, value = inputs(5, past=7, room=20)
  used = 12
  dirty = [x.at[:, used:].set(1e9) for x in (key, value)]
  expected = attend(query, key[:, :used], value[:, :used], position=7)
  got = attend(query, *dirty, position=jnp.int32(7))
  np.testing.assert_allclose(got, expected, atol=2e-6)


@pytest.mark.parametrize("scale", [0.0, 30.0, 300.0])
@pytest.mark.parametrize("op", OPS)
def test_scores_of_any_size_give_finite_numbers(op, scale):
  attend, twin = OPS[op]
  qkv = inputs(40, scale=scale)

  def loss(*qkv):
    return jnp.sum(attend(*qkv) ** 2)

  got = attend(*qkv)
  np.testing.assert_allclose(got, twin(*qkv), atol=2e-4)
  for leaf in jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(*qkv):
    assert bool(jnp.isfinite(leaf).all())


def test_a_long_stick_stays_exact():
  """Thousands of weak keys: the logarithm of what is left is a long sum."""
  length = 3000
  query, key, value = inputs(length, heads=1, kv_heads=1)
  query = query[:1, -1:] * 0.1
  key, value = key[:1], value[:1]
  got = stick_breaking_attention(query, key, value, position=length - 1)
  z = np.einsum("h,uh->u", query[0, 0, 0], key[0, :, 0], dtype=np.float64)
  z = z[:-1] / np.sqrt(8)
  later = np.logaddexp(0, z)[::-1].cumsum()[::-1]
  want = np.exp(z - later) @ np.asarray(value[0, :-1, 0], np.float64)
  np.testing.assert_allclose(got[0, 0, 0], want, atol=2e-6)


@pytest.mark.parametrize("size", [1, 7, 16, 48, 256])
def test_suffix_sum(size):
  x = np.random.default_rng(0).normal(size=(3, size)).astype(np.float32)
  want = x[:, ::-1].cumsum(axis=1)[:, ::-1]
  np.testing.assert_allclose(suffix_sum(jnp.asarray(x)), want, atol=1e-5)


@pytest.mark.parametrize("op", OPS)
def test_memory_of_the_gradient_is_linear(op):
  """Four times the length takes four times the room, not sixteen."""

  def temporary(length):
    attend, _ = OPS[op]
    shape = jax.ShapeDtypeStruct((1, length, 2, 16), jnp.float32)
    loss = jax.grad(lambda *qkv: attend(*qkv).sum(), argnums=(0, 1, 2))
    compiled = jax.jit(loss).lower(shape, shape, shape).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  short, long = temporary(2048), temporary(8192)
  assert long < 5 * short
  assert long < 8192 * 8192  # a quarter of one array of scores


@pytest.mark.parametrize("op", OPS)
def test_sixteen_bits_in_sixteen_bits_out(op):
  attend, twin = OPS[op]
  qkv = inputs(33)
  got = attend(*(x.astype(jnp.bfloat16) for x in qkv))
  assert got.dtype == jnp.bfloat16
  np.testing.assert_allclose(got.astype(jnp.float32), twin(*qkv), atol=0.05)


def test_the_kernel_for_tpus_agrees():
  """Step by step on a CPU: forward, with fewer key heads than query heads."""
  qkv = inputs(130, dim=128)
  got = full_attention(*qkv, implementation="splash")
  np.testing.assert_allclose(got, full_attention(*qkv), atol=2e-6)


@pytest.mark.parametrize(
  ("asked", "platform", "length", "whole", "half", "name"),
  [
    ("auto", "cpu", 512, True, True, "blocked"),
    ("auto", "tpu", 512, True, False, "splash"),
    ("auto", "tpu", 1, False, False, "blocked"),
    ("auto", "tpu", 64, True, False, "blocked"),
    ("auto", "gpu", 512, True, True, "cudnn"),
    ("auto", "gpu", 512, True, False, "blocked"),
    ("splash", "tpu", 64, False, False, "blocked"),
    ("reference", "cpu", 8, False, False, "reference"),
  ],
)
def test_choice(asked, platform, length, whole, half, name):
  choice = choose_full(
    asked, platform=platform, length=length, whole=whole, half=half
  )
  assert choice.name == name


@pytest.mark.parametrize(
  ("asked", "platform", "half", "words"),
  [
    ("flash", "cpu", True, "use one of reference, blocked, splash, cudnn"),
    ("splash", "gpu", True, "a kernel for tpus, and this is a gpu"),
    ("cudnn", "cpu", True, "a kernel for gpus, and this is a cpu"),
    ("cudnn", "gpu", False, "computes in 16 bits"),
  ],
)
def test_what_cannot_run_is_refused(asked, platform, half, words):
  with pytest.raises(ValueError, match=words):
    choose_full(asked, platform=platform, length=512, whole=True, half=half)
  assert full.IMPLEMENTATIONS[:2] == stick.IMPLEMENTATIONS
