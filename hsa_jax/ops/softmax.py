"""One softmax for windows, chunks and the encoder, with its own derivative."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

# The parts of one softmax may differ in length.
Parts = tuple[Float[Array, "*lead _"], ...]
Mass = Float[Array, "*lead"]


def softmax(
  logits: Float[Array, "*lead J"], *, sink: int = 0
) -> tuple[Float[Array, "*lead J"], Mass]:
  """`softmax_n` over the last axis, and the logarithm of its denominator.

  Args:
    logits: float32.
    sink: n, added to the denominator: 1 is the softmax-off-by-one.
  """
  (shares,), mass = _joint((logits,), sink)
  return shares, mass


def joint_softmax(parts: Sequence[Float[Array, "*lead _"]]) -> Parts:
  """Softmax over the last axes of all parts together, without joining them."""
  return _joint(tuple(parts), 0)[0]


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _joint(parts: Parts, sink: int) -> tuple[Parts, Mass]:
  tops = [jnp.max(part, axis=-1) for part in parts]
  top = lax.stop_gradient(functools.reduce(jnp.maximum, tops))
  if sink:
    top = jnp.maximum(top, 0.0)
  exps = [jnp.exp(part - top[..., None]) for part in parts]
  total = sum(jnp.sum(part, axis=-1) for part in exps)
  total = jnp.asarray(total)
  if sink:
    total = total + sink * jnp.exp(-top)
  inverse = (1.0 / total)[..., None]
  return tuple(part * inverse for part in exps), jnp.log(total) + top


@_joint.defjvp
def _joint_jvp(sink: int, primals: tuple, tangents: tuple) -> tuple:
  """`dy = y * dx - y * sum(y * dx)`, `dmass = sum(y * dx)`.

  The sums are spelt as dot products, forwards and, when transposed, backwards:
  XLA on CPU is several times slower at a product followed by a sum.
  """
  shares, mass = _joint(*primals, sink)
  pairs = list(zip(shares, tangents[0], strict=True))
  inner = sum(jnp.einsum("...j,...j->...", y, dx) for y, dx in pairs)
  moved = tuple(
    y * dx - jnp.einsum("...j,...->...j", y, inner) for y, dx in pairs
  )
  return (shares, mass), (moved, jnp.asarray(inner))
