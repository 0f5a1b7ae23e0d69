"""T1, T2, T9: every implementation of the read is the reference's equal."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hsa_jax.ops import read
from tests.ops.cases import read_case

FAST = ("dense", "gather")
CASES = {
  "mixed": {},
  "all_invalid": {},
  "one_popular": {},
  "more_slots_than_chunks": {"top_k": 5},
  "one_token": {"length": 1},
  "one_memory_head": {"memory_heads": 1},
  "a_memory_head_per_query_head": {"memory_heads": 4},
  "odd_chunk": {"chunk_size": 3, "chunks": 7},
}


def make(name):
  return read_case(name, **CASES[name])


def run(case, implementation, sink=0, weights=True):
  return read.read_chunks(
    case.query,
    case.keys,
    case.values,
    case.selection,
    case.weights if weights else None,
    sink=sink,
    implementation=implementation,
  )


run_compiled = jax.jit(run, static_argnums=(1, 2, 3))


@pytest.mark.parametrize("sink", [0, 1])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_forward_equals_reference(name, weighted, sink):
  case = make(name)
  expected = run(case, "reference", sink, weighted)
  for implementation in FAST:
    got = run_compiled(case, implementation, sink, weighted)
    np.testing.assert_allclose(got, expected, atol=2e-6, err_msg=implementation)


@pytest.mark.parametrize("sink", [0, 1])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("name", ["mixed", "all_invalid", "one_popular"])
def test_gradients_equal_reference(name, weighted, sink):
  case = make(name)

  def loss(query, keys, values, weights, implementation):
    changed = case._replace(
      query=query, keys=keys, values=values, weights=weights
    )
    out = run(changed, implementation, sink, weighted)
    return jnp.sum(jnp.sin(out) * scale)

  scale = jnp.broadcast_to(jnp.arange(6.0), case.query.shape)
  gradient = jax.grad(loss, argnums=(0, 1, 2, 3))
  compiled = jax.jit(gradient, static_argnums=4)
  inputs = (case.query, case.keys, case.values, case.weights)
  expected = gradient(*inputs, "reference")
  valid = case.selection.valid
  for implementation in FAST:
    got = compiled(*inputs, implementation)
    for of, a, b in zip("qkvw", got, expected, strict=True):
      assert bool(jnp.all(jnp.isfinite(a))), (implementation, of)
      if of == "w":  # what an invalid slot would have read is irrelevant
        a, b = jnp.where(valid, a, 0.0), jnp.where(valid, b, 0.0)
      np.testing.assert_allclose(a, b, atol=5e-6, err_msg=implementation + of)


def test_all_invalid_rows_read_nothing():
  for implementation in ("reference", *FAST):
    for weighted in (True, False):
      out = run(make("all_invalid"), implementation, 0, weighted)
      assert float(jnp.abs(out).max()) == 0.0


def test_gather_tiles_equal_one_tile(monkeypatch):
  case = read_case(length=11)
  whole = run(case, "gather")
  row_bytes = 4 * 2 * case.keys[0, 0].nbytes * case.selection.index.shape[-1]
  monkeypatch.setattr(read, "GATHER_ROW_BYTES", row_bytes)
  np.testing.assert_allclose(run(case, "gather"), whole, atol=1e-6)


@pytest.mark.parametrize(
  "length",
  [2, 11, *(pytest.param(n, marks=pytest.mark.slow) for n in (12, 13))],
)
def test_causal_tiles_equal_one_tile(monkeypatch, length):
  monkeypatch.setattr(read, "DENSE_MIN_TILE", 4)
  case = read_case(length=length, chunk_size=3, chunks=4)
  ends = 3 * case.selection.index + 2
  seen = case.selection.valid & (ends < jnp.arange(length)[None, :, None, None])
  index = jnp.where(seen, case.selection.index, 0)
  selection = case.selection._replace(index=index, valid=seen)
  weights = jnp.where(seen, case.weights, 0.0)
  assert length < 4 or bool(seen.any())

  def loss(arrays, causal, weighted):
    query, keys, values, share = arrays
    out = read.read_chunks(
      query,
      keys,
      values,
      selection,
      share if weighted else None,
      causal=causal,
      implementation="dense",
    )
    return jnp.sum(jnp.sin(out)), out

  arrays = (case.query, case.keys, case.values, weights)
  for weighted in (True, False):
    run = jax.value_and_grad(loss, has_aux=True)
    (_, tiled), gradient = run(arrays, True, weighted)
    (_, whole), expected = run(arrays, False, weighted)
    np.testing.assert_allclose(tiled, whole, atol=1e-6)
    for a, b in zip(gradient[:3], expected[:3], strict=True):
      np.testing.assert_allclose(a, b, atol=1e-6)
    a, b = (jnp.where(seen, g[3], 0.0) for g in (gradient, expected))
    np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("implementation", ["reference", *FAST])
def test_closed_form_gradients(implementation):
  """dw = <dO, Obar>; dV = w P^T dO, written out for one token and head."""
  case = read_case(batch=1, length=1, heads=1, memory_heads=1, top_k=1)
  case = case._replace(
    selection=case.selection._replace(
      index=jnp.full((1, 1, 1, 1), 2), valid=jnp.ones((1, 1, 1, 1), bool)
    ),
    weights=jnp.full((1, 1, 1, 1), 0.3),
  )
  cotangent = jnp.arange(6.0)

  def loss(values, weights):
    out = run(case._replace(values=values, weights=weights), implementation)
    return jnp.sum(out[0, 0, 0] * cotangent)

  d_values, d_weights = jax.grad(loss, argnums=(0, 1))(
    case.values, case.weights
  )
  logits = case.keys[0, 2, :, 0] @ case.query[0, 0, 0] / np.sqrt(6)
  share = jax.nn.softmax(logits)
  np.testing.assert_allclose(
    d_weights[0, 0, 0, 0],
    share @ case.values[0, 2, :, 0] @ cotangent,
    rtol=1e-5,
  )
  np.testing.assert_allclose(
    d_values[0, 2, :, 0],
    0.3 * share[:, None] * cotangent[None, :],
    rtol=1e-5,
    atol=1e-6,
  )
  assert float(jnp.abs(d_values[0, :2]).max()) == 0.0


@pytest.mark.parametrize("implementation", ["reference", *FAST])
def test_exact_mass_weights_reproduce_flat_attention(implementation):
  """T9: weights = softmax(chunk log-sum-exp) is one softmax over all tokens."""
  case = read_case("mixed", batch=1, heads=1, memory_heads=1, chunks=3, top_k=3)
  everything = jnp.broadcast_to(jnp.array([2, 1, 0]), (1, 5, 1, 3))
  case = case._replace(
    selection=case.selection._replace(
      index=everything, valid=jnp.ones_like(everything, bool)
    )
  )
  keys, values = case.keys.reshape(12, 6), case.values.reshape(12, 6)
  logits = case.query[0, :, 0] @ keys.T / np.sqrt(6)
  flat = jax.nn.softmax(logits, axis=-1) @ values
  got = run(case, implementation, sink=0, weights=False)
  np.testing.assert_allclose(got[0, :, 0], flat, atol=2e-6)
  mass = jax.nn.logsumexp(logits.reshape(5, 3, 4), axis=-1)[:, ::-1]
  case = case._replace(weights=jax.nn.softmax(mass)[None, :, None])
  np.testing.assert_allclose(
    run(case, implementation)[0, :, 0], flat, atol=2e-6
  )


@pytest.mark.parametrize("implementation", FAST)
def test_bfloat16_is_close_and_finite(implementation):
  exact = run(read_case(), "reference")
  case = read_case(dtype=jnp.bfloat16)
  got = run(case, implementation)
  assert got.dtype == jnp.bfloat16
  np.testing.assert_allclose(
    got.astype(jnp.float32), exact, atol=0.05, rtol=0.05
  )


def test_an_empty_memory_reads_zero():
  case = read_case()
  empty = case._replace(keys=case.keys[:, :0], values=case.values[:, :0])
  assert float(jnp.abs(run(empty, "auto")).max()) == 0.0


def test_unknown_implementation_is_an_error():
  with pytest.raises(ValueError, match="use one of reference, dense, gather"):
    run(read_case(), "fused")


def test_dispatch_by_shape_and_backend():
  pick = read.pick_implementation
  assert pick(num_chunks=8, top_k=4, backend="cpu") == "dense"
  assert pick(num_chunks=64, top_k=4, backend="cpu") == "gather"
  assert pick(num_chunks=64, top_k=8, backend="gpu") == "dense"
  assert pick(num_chunks=4096, top_k=8, backend="tpu") == "gather"
