"""Recurrences by chunks: literal values, twins, splits, filling, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hsa_jax.ops import recurrence
from hsa_jax.ops.chunked import causal_conv
from hsa_jax.ops.gla import gla
from hsa_jax.ops.ssd import ssd

B, N, G, P, Z = 2, 4, 2, 3, 5


def draw(*shape, seed=0):
  values = np.random.default_rng(seed).normal(size=shape)
  return jnp.asarray(values, jnp.float32)


def ssd_inputs(length, *, strength=1.0):
  """With a state before the first token; `strength` of the decay."""
  value, key, query = (
    draw(B, length, *shape, seed=i)
    for i, shape in enumerate([(N, P), (G, Z), (G, Z)])
  )
  step = jax.nn.softplus(draw(B, length, N, seed=3))
  slope = strength * jnp.arange(1.0, N + 1)
  return value, step, slope, key, query, draw(B, N, P, Z, seed=4)


def gla_inputs(length, *, strength=1.0):
  query, key, value = (
    draw(B, length, N, size, seed=i) for i, size in enumerate([Z, Z, P])
  )
  log_decay = -strength * jax.nn.softplus(draw(B, length, N, Z, seed=3))
  return query, key, value, log_decay, draw(B, N, Z, P, seed=4)


OPS = {
  name: (jax.jit(op, static_argnames="chunk"), jax.jit(twin), make)
  for name, op, twin, make in (
    ("ssd", ssd, recurrence.ssd, ssd_inputs),
    ("gla", gla, recurrence.gla, gla_inputs),
  )
}
STATE = {"ssd": 5, "gla": 4}  # which argument is the state


def over_time(name, args, change):
  """`change` on every argument that has a time axis."""
  still = {"ssd": (2, 5), "gla": (4,)}[name]
  return [x if i in still else change(x) for i, x in enumerate(args)]


def test_ssd_by_hand():
  """Halves what was, adds step * value * key, reads by the query."""
  one = jnp.ones((1, 3, 1, 1))
  step = jnp.full((1, 3, 1), 2.0)
  slope, begin = jnp.log(2.0)[None] / 2, jnp.full((1, 1, 1, 1), 8.0)
  out, state = ssd(one, step, slope, 3 * one, one, begin, chunk=2)
  # 8/2 + 6, 10/2 + 6, 11/2 + 6
  np.testing.assert_allclose(out.ravel(), [10, 11, 11.5], rtol=1e-6)
  np.testing.assert_allclose(state.ravel(), [11.5], rtol=1e-6)


def test_gla_by_hand():
  """Each channel of the key forgets by itself."""
  key = jnp.array([[1.0, 1, 1, 1], [1.0, 0, 0, 0]])[None, :, None]
  query = jnp.full((1, 2, 1, 4), 2.0)  # over sqrt(4): 1
  log_decay = jnp.log(jnp.array([1.0, 0.5, 0.25, 1.0]))
  log_decay = jnp.broadcast_to(log_decay, (1, 2, 1, 4))
  value, state = jnp.ones((1, 2, 1, 1)), jnp.zeros((1, 1, 4, 1))
  out, state = gla(query, key, value, log_decay, state, chunk=16)
  np.testing.assert_allclose(state.ravel(), [2, 0.5, 0.25, 1], rtol=1e-6)
  np.testing.assert_allclose(out.ravel(), [4, 3.75], rtol=1e-6)


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize(
  ("length", "chunk"), [(1, 8), (7, 8), (23, 8), (40, 32), (9, 1)]
)
def test_chunks_equal_tokens(name, length, chunk):
  op, twin, make = OPS[name]
  args = make(length)
  got = op(*args, chunk=chunk)
  for a, b in zip(got, twin(*args), strict=True):
    np.testing.assert_allclose(a, b, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize(
  ("length", "chunk", "strength"), [(23, 8, 1.0), (40, 32, 30.0)]
)
def test_gradients_equal_those_of_the_twin(name, length, chunk, strength):
  """Of every input, the state included; strong decay overflows nothing."""
  op, twin, make = OPS[name]
  args = make(length, strength=strength)
  weights = [draw(*x.shape, seed=9) for x in twin(*args)]

  def loss(run, *args):
    return sum(jnp.sum(w * x) for w, x in zip(weights, run(*args), strict=True))

  every = tuple(range(len(args)))

  def chunked(*args):
    return op(*args, chunk=chunk)

  got = jax.jit(jax.grad(lambda *a: loss(chunked, *a), every))(*args)
  want = jax.jit(jax.grad(lambda *a: loss(twin, *a), every))(*args)
  for a, b in zip(got, want, strict=True):
    assert bool(jnp.isfinite(a).all())
    assert float(jnp.abs(b).max()) > 1e-3
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("cut", [1, 17])
def test_a_state_goes_on_where_it_was(name, cut):
  op, _, make = OPS[name]
  args = make(23)
  want, last = op(*args, chunk=8)
  first, state = op(*over_time(name, args, lambda x: x[:, :cut]), chunk=8)
  rest = over_time(name, args, lambda x: x[:, cut:])
  rest[STATE[name]] = state
  second, after = op(*rest, chunk=8)
  got = jnp.concatenate([first, second], axis=1)
  np.testing.assert_allclose(got, want, rtol=0, atol=2e-5)
  np.testing.assert_allclose(after, last, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("count", [0, 3])
def test_filling_does_not_touch_the_state(name, count):
  op, _, make = OPS[name]
  args = make(11)
  _, got = op(*args, chunk=4, count=count)
  want = args[STATE[name]]
  if count:
    short = over_time(name, args, lambda x: x[:, :count])
    want = op(*short, chunk=4)[1]
  np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)


def test_decay_without_bound_is_no_nan():
  """Where a state is forgotten within a token, and exp(-c) overflows."""
  for name, (op, twin, make) in OPS.items():
    args = make(40, strength=1e3)
    out, state = op(*args, chunk=32)
    want, _ = twin(*args)
    assert bool(jnp.isfinite(state).all()), name
    np.testing.assert_allclose(out, want, rtol=0, atol=1e-4)


def test_memory_of_a_derivative_is_linear_in_the_length():
  """Scores of one chunk at a time: four times the tokens, four times bytes."""
  for op, _, make in OPS.values():
    sizes = []
    for length in (512, 2048):
      args = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in make(length)]

      def loss(*args, op=op):
        return op(*args, chunk=64)[0].sum()

      compiled = jax.jit(jax.grad(loss, 0)).lower(*args).compile()
      sizes.append(compiled.memory_analysis().temp_size_in_bytes)
    assert sizes[1] < 5 * sizes[0]


@pytest.mark.parametrize("width", [1, 4])
def test_the_filter_of_a_stretch_and_its_tail(width):
  x, taps, bias = draw(2, 9, 6), draw(width, 6, seed=1), draw(6, seed=2)
  tail = draw(2, width - 1, 6, seed=3)
  want = recurrence.conv(x, taps, bias, tail)
  got, after = causal_conv(x, taps, bias, tail)
  np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)
  first, middle = causal_conv(x[:, :2], taps, bias, tail)
  second, last = causal_conv(x[:, 2:], taps, bias, middle)
  both = jnp.concatenate([first, second], axis=1)
  np.testing.assert_allclose(both, want, rtol=0, atol=1e-5)
  assert jnp.array_equal(last, after)
  _, counted = jax.jit(causal_conv)(x, taps, bias, tail, count=2)
  assert jnp.array_equal(counted, middle)
