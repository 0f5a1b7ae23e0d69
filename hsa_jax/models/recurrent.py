"""What recurrent layers share: the causal filter, and where a state comes from.

A recurrent layer remembers a `RecurrentState` of constant size, whatever the
length of the context. It needs no capacity and never fills up; but its output
depends on every token before.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from hsa_jax.ops.chunked import causal_conv
from hsa_jax.types import RecurrentState


class CausalConv(nnx.Module):
  """A filter of `width` tokens for each channel, the own token's tap last.

  Attributes:
    taps: `[width, dim]`, float32.
    bias: `[dim]`, float32.
  """

  def __init__(self, dim: int, width: int, *, rngs: nnx.Rngs):
    # Uniform with the variance of a filter's sum, torch's rule for Conv1d.
    bound = width**-0.5
    self.taps = nnx.Param(
      jax.random.uniform(
        rngs.params(), (width, dim), jnp.float32, -bound, bound
      )
    )
    self.bias = nnx.Param(jnp.zeros((dim,), jnp.float32))

  def __call__(
    self,
    x: Float[Array, "B T F"],
    tail: Float[Array, "B p F"],
    count: jax.Array | int | None = None,
  ) -> tuple[Float[Array, "B T F"], Float[Array, "B p F"]]:
    """`ops.chunked.causal_conv` and SiLU behind it."""
    out, tail = causal_conv(
      x, self.taps[...], self.bias[...], tail, count=count
    )
    return jax.nn.silu(out), tail


def run_with_state(
  mix: Callable[
    [jax.Array, RecurrentState, jax.Array | int | None],
    tuple[jax.Array, RecurrentState],
  ],
  x: Float[Array, "B T D"],
  state: RecurrentState | None,
  empty: Callable[[int], RecurrentState],
  count: jax.Array | int | None,
) -> tuple[Float[Array, "B T D"], RecurrentState | None]:
  """`mix(x, state, count)`, from zero where there is no state.

  A state with `n` times the rows of `x` makes the layer begin anew at each of
  `n` equal segments of a row: row `i` of the state is that of segment `i % n`
  of row `i // n` (RAMba's memory reset; training only).
  """
  if state is None:
    return mix(x, empty(x.shape[0]), count)[0], None
  segments = state.memory.shape[0] // x.shape[0]
  if segments == 1:
    return mix(x, state, count)
  cut = x.reshape(state.memory.shape[0], -1, x.shape[2])
  out, state = mix(cut, state, None)
  return out.reshape(x.shape), state
