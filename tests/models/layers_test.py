"""Projections: any leading axes, gradients, element types."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from hsa_jax.models.layers import LayerNorm, linear, swiglu

X = jax.random.normal(jax.random.key(0), (2, 5, 3))


@pytest.mark.parametrize("out_dim", [4, 2])  # wider and narrower than X
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_projection_equals_a_product(dtype, out_dim):
  layer = linear(3, out_dim, scale=0.5, dtype=dtype, rngs=nnx.Rngs(0))

  def own(layer, x):
    return layer(x).astype(jnp.float32)

  def plain(layer, x):
    kernel = layer.kernel[...].astype(dtype)
    out = jnp.einsum("btd,df->btf", x.astype(dtype), kernel)
    return out.astype(jnp.float32)

  def gradients(function):
    def loss(layer, x):
      return jnp.sum(function(layer, x) ** 2)

    layers, x = jax.grad(loss, argnums=(0, 1))(layer, X)
    return layers.kernel[...], x

  tolerance = 1e-5 if dtype == "float32" else 3e-2
  assert layer(X).dtype == jnp.dtype(dtype)
  np.testing.assert_allclose(own(layer, X), plain(layer, X), atol=tolerance)
  for got, want in zip(gradients(own), gradients(plain), strict=True):
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


def test_projection_of_no_tokens():
  layer = linear(3, 4, scale=0.5, dtype="float32", rngs=nnx.Rngs(0))
  assert layer(X[:, :0]).shape == (2, 0, 4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_swiglu_and_its_derivative(dtype):
  gate, up, weight = (8 * X - 3, X[::-1], X + 1)

  def loss(function):
    def of(gate, up):
      out = function(gate.astype(dtype), up.astype(dtype))
      return jnp.sum(out.astype(jnp.float32) * weight)

    return jax.value_and_grad(of, argnums=(0, 1))(gate, up)

  got, want = loss(swiglu), loss(lambda gate, up: jax.nn.silu(gate) * up)
  tolerance = 1e-5 if dtype == "float32" else 3e-2
  for mine, plain in zip(
    jax.tree.leaves(got), jax.tree.leaves(want), strict=True
  ):
    np.testing.assert_allclose(mine, plain, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_layer_norm_by_hand(dtype):
  norm = LayerNorm(3, eps=1e-5)
  norm.scale = nnx.Param(jnp.array([1.0, -2.0, 0.5]))
  x = np.asarray(4 * X + 7, dtype).astype(np.float64)
  centred = x - x.mean(-1, keepdims=True)
  want = centred / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * [1.0, -2.0, 0.5]
  got = norm(jnp.asarray(x, dtype))
  assert got.dtype == jnp.dtype(dtype)
  atol = 1e-5 if dtype == "float32" else 2e-2
  np.testing.assert_allclose(np.asarray(got, np.float64), want, atol=atol)
