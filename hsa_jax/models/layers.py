"""Norm, projections, gated MLP: the parts that every block is made of."""

import functools
import math
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from hsa_jax.config import ModelConfig, Norm

T = TypeVar("T", bound=nnx.Module)


@functools.cache
def initializer(scale: float) -> nnx.Initializer:
  """N(0, scale^2). Cached: modules compare equal only with the same object."""
  return nnx.initializers.normal(scale)


class Projection(nnx.Linear):
  """`nnx.Linear` on tokens flattened to one axis.

  XLA on CPU copies both operands of a weight gradient that contracts over two
  axes; over one axis it does not. A sharded sequence keeps its own axis.
  """

  def __call__(self, inputs: Float[Array, "*lead D"]) -> jax.Array:
    if jax.sharding.get_abstract_mesh().shape.get("context", 1) > 1:
      return super().__call__(inputs)
    tokens = math.prod(inputs.shape[:-1])
    flat = inputs.reshape(tokens, inputs.shape[-1]).astype(self.dtype)
    out = _project(flat, self.kernel[...].astype(self.dtype))
    return out.reshape(*inputs.shape[:-1], out.shape[-1])


@jax.custom_vjp
def _project(
  x: Float[Array, "M D"], kernel: Float[Array, "D F"]
) -> Float[Array, "M F"]:
  return x @ kernel


def _project_bwd(saved: tuple, grad: jax.Array) -> tuple:
  x, kernel = saved
  # The narrow one of the two is transposed: less to move.
  if x.shape[1] <= grad.shape[1]:
    return grad @ kernel.T, _transpose(x) @ grad
  return grad @ kernel.T, (_transpose(grad) @ x).T


def _transpose(x: Float[Array, "M D"]) -> Float[Array, "D M"]:
  return jax.lax.platform_dependent(
    x, cpu=_transpose_apart, default=jnp.transpose
  )


def _transpose_apart(x: jax.Array) -> jax.Array:
  """The fast product of XLA on CPU takes no transposed first operand.

  Without the barrier the transpose melts into the product, which then runs at
  half the rate and takes the threads of other devices.
  """
  return jax.lax.optimization_barrier(x.T)


_project.defvjp(
  lambda x, kernel: (_project(x, kernel), (x, kernel)), _project_bwd
)


def linear(
  in_dim: int, out_dim: int, *, scale: float, dtype: str, rngs: nnx.Rngs
) -> nnx.Linear:
  """A bias-free projection: float32 parameters, product in `dtype`."""
  return Projection(
    in_dim,
    out_dim,
    use_bias=False,
    kernel_init=initializer(scale),
    dtype=jnp.dtype(dtype),
    param_dtype=jnp.float32,
    rngs=rngs,
  )


def heads(x: jax.Array, num_heads: int) -> Float[Array, "*lead N H"]:
  """Splits the last axis into heads."""
  return x.reshape(*x.shape[:-1], num_heads, x.shape[-1] // num_heads)


def stack(build: Callable[[jax.Array], T], key: jax.Array, count: int) -> T:
  """`count` modules as one, every parameter with a leading layer axis."""
  return jax.vmap(build)(jax.random.split(key, count))


def rms_normalize(
  x: Float[Array, "*lead D"], *, eps: float
) -> Float[Array, "*lead D"]:
  """`x / rms(x)` over the last axis; float32 in, float32 out."""
  # A dot product: XLA on CPU vectorises it, unlike a mean of squares.
  square = jnp.einsum("...d,...d->...", x, x)[..., None]
  return x * jax.lax.rsqrt(square / x.shape[-1] + eps)


class RMSNorm(nnx.Module):
  """`x / rms(x) * scale` over the last axis, in float32."""

  def __init__(self, dim: int, *, eps: float):
    self.eps = eps
    self.scale = nnx.Param(jnp.ones((dim,), jnp.float32))

  def __call__(self, x: Float[Array, "*lead D"]) -> Float[Array, "*lead D"]:
    wide = rms_normalize(x.astype(jnp.float32), eps=self.eps)
    gain = jnp.broadcast_to(self.scale[...], wide.shape)
    return (wide * gain).astype(x.dtype)


class LayerNorm(nnx.Module):
  """`(x - mean) / std * scale` over the last axis, in float32; no bias."""

  def __init__(self, dim: int, *, eps: float):
    self.eps = eps
    self.scale = nnx.Param(jnp.ones((dim,), jnp.float32))

  def __call__(self, x: Float[Array, "*lead D"]) -> Float[Array, "*lead D"]:
    wide = x.astype(jnp.float32)
    wide = wide - jnp.mean(wide, axis=-1, keepdims=True)
    wide = rms_normalize(wide, eps=self.eps)
    gain = jnp.broadcast_to(self.scale[...], wide.shape)
    return (wide * gain).astype(x.dtype)


def stream_norm(cfg: ModelConfig) -> RMSNorm | LayerNorm:
  """The norm of the stream that the model asks for."""
  kind = LayerNorm if cfg.norm is Norm.LAYER else RMSNorm
  return kind(cfg.embed_dim, eps=cfg.norm_eps)


class GatedMlp(nnx.Module):
  """SwiGLU: `down(silu(gate(x)) * up(x))`."""

  def __init__(
    self, dim: int, mlp_dim: int, *, scale: float, dtype: str, rngs: nnx.Rngs
  ):
    make = functools.partial(linear, scale=scale, dtype=dtype, rngs=rngs)
    self.gate = make(dim, mlp_dim)
    self.up = make(dim, mlp_dim)
    self.down = make(mlp_dim, dim)

  def __call__(self, x: Float[Array, "*lead D"]) -> Float[Array, "*lead D"]:
    return self.down(swiglu(self.gate(x), self.up(x)))


@jax.custom_vjp
def swiglu(
  gate: Float[Array, "*lead F"], up: Float[Array, "*lead F"]
) -> Float[Array, "*lead F"]:
  """`silu(gate) * up`, computed again for its derivative.

  Kept for it are the two arguments alone: on a CPU writing the sigmoid and the
  gate down takes longer than computing them twice.
  """
  return jax.nn.silu(gate) * up


def _swiglu_bwd(saved: tuple, grad: jax.Array) -> tuple:
  gate, up = saved
  share = jax.nn.sigmoid(gate)
  slope = share * (1 + gate * (1 - share))
  return grad * up * slope, grad * gate * share


swiglu.defvjp(lambda gate, up: (swiglu(gate, up), (gate, up)), _swiglu_bwd)
