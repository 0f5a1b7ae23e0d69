"""Mamba-2 as a layer: projections, filters, the recurrence, the gated norm."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from hsa_jax.config import Mamba2Config, ModelConfig
from hsa_jax.models.layers import heads, linear, rms_normalize
from hsa_jax.models.recurrent import CausalConv, run_with_state
from hsa_jax.ops.ssd import ssd
from hsa_jax.parallel import split_rows
from hsa_jax.types import Limits, RecurrentState


class GroupNorm(nnx.Module):
  """`x / rms(x) * scale`, the mean square over each of some equal groups."""

  def __init__(self, dim: int, groups: int, *, eps: float):
    self.groups, self.eps = groups, eps
    self.scale = nnx.Param(jnp.ones((dim,), jnp.float32))

  def __call__(self, x: Float[Array, "B T F"]) -> Float[Array, "B T F"]:
    """float32 in, float32 out."""
    normed = rms_normalize(heads(x, self.groups), eps=self.eps).reshape(x.shape)
    return normed * jnp.broadcast_to(self.scale[...], x.shape)


class Mamba2(nnx.Module):
  """Mamba-2's mixer (arXiv 2405.21060), without a norm before it.

    value, key, query = silu(filter(projections of x))
    step = softplus(projection of x + step_bias)
    out(norm(silu(gate(x)) * (recurrence + skip_gain * value)))

  In the published names: `value`, `key`, `query` and their filters are x, B and
  C of `in_proj` and `conv1d`, `gate` is z, `step` dt; `exp(log_slope)` is -A,
  `skip_gain` is D, `step_bias` is dt_bias, `out` is `out_proj`. Kernels are
  `[in, out]`, taps `[width, channel]`.

  Attributes:
    cfg: of the model.
  """

  def __init__(self, cfg: ModelConfig, *, rngs: nnx.Rngs):
    own = cfg.mamba2
    self.cfg = cfg
    inner, shared, count = inner_width(cfg), shared_width(own), num_heads(cfg)
    make = functools.partial(
      linear, scale=cfg.init_scale, dtype=cfg.compute_dtype, rngs=rngs
    )
    self.gate = make(cfg.embed_dim, inner)
    self.value = make(cfg.embed_dim, inner)
    self.key = make(cfg.embed_dim, shared)
    self.query = make(cfg.embed_dim, shared)
    self.step = make(cfg.embed_dim, count)
    self.value_conv = CausalConv(inner, own.conv_width, rngs=rngs)
    self.key_conv = CausalConv(shared, own.conv_width, rngs=rngs)
    self.query_conv = CausalConv(shared, own.conv_width, rngs=rngs)
    self.step_bias = nnx.Param(_first_steps(own, count, rngs.params()))
    self.log_slope = nnx.Param(_first_slopes(own, count, rngs.params()))
    self.skip_gain = nnx.Param(jnp.ones((count,), jnp.float32))
    self.norm = GroupNorm(inner, own.num_groups, eps=cfg.norm_eps)
    self.out = make(inner, cfg.embed_dim)

  def __call__(
    self,
    x: Float[Array, "B T D"],
    state: RecurrentState | None,
    position: jax.Array | int,
    limits: Limits,
    count: jax.Array | int | None = None,
  ) -> tuple[Float[Array, "B T D"], RecurrentState | None]:
    del position, limits  # of attention
    return run_with_state(self._mix, x, state, self.init_state, count)

  def init_state(self, batch: int, capacity: int = 0) -> RecurrentState:
    """Nothing remembered: the same bytes for any capacity."""
    del capacity
    cfg, own = self.cfg, self.cfg.mamba2
    memory = (batch, num_heads(cfg), own.head_dim, own.state_dim)
    widths = (inner_width(cfg), shared_width(own), shared_width(own))
    dtype = jnp.dtype(cfg.compute_dtype)
    return RecurrentState(
      jnp.zeros(memory, jnp.float32),
      tuple(jnp.zeros((batch, own.conv_width - 1, w), dtype) for w in widths),
    )

  def _mix(
    self,
    x: jax.Array,
    state: RecurrentState,
    count: jax.Array | int | None,
  ) -> tuple[jax.Array, RecurrentState]:
    own = self.cfg.mamba2
    before = state.tails
    value, value_tail = self.value_conv(self.value(x), before[0], count)
    key, key_tail = self.key_conv(self.key(x), before[1], count)
    query, query_tail = self.query_conv(self.query(x), before[2], count)
    value = split_rows(heads(value, num_heads(self.cfg)), tensor=-2)
    step = self.step(x).astype(jnp.float32)
    bias = jnp.broadcast_to(self.step_bias[...], step.shape)
    read, memory = ssd(
      value,
      jax.nn.softplus(step + bias),
      jnp.exp(self.log_slope[...]),
      heads(key, own.num_groups),
      heads(query, own.num_groups),
      state.memory,
      chunk=own.chunk_size,
      count=count,
    )
    read = read + value * self.skip_gain[...][None, None, :, None]
    read = read.reshape(*read.shape[:2], -1)
    gated = self.norm(read * jax.nn.silu(self.gate(x).astype(jnp.float32)))
    after = RecurrentState(memory, (value_tail, key_tail, query_tail))
    return self.out(gated.astype(x.dtype)), after


def inner_width(cfg: ModelConfig) -> int:
  """Width of values and gates."""
  return cfg.mamba2.expand * cfg.embed_dim


def shared_width(own: Mamba2Config) -> int:
  """Width of keys; queries are as wide."""
  return own.num_groups * own.state_dim


def num_heads(cfg: ModelConfig) -> int:
  """Heads, each with a state."""
  return inner_width(cfg) // cfg.mamba2.head_dim


def _first_steps(
  own: Mamba2Config, count: int, key: jax.Array
) -> Float[Array, " N"]:
  """The inverse softplus of log-uniform steps."""
  low, high = jnp.log(own.step_min), jnp.log(own.step_max)
  step = jnp.exp(jax.random.uniform(key, (count,), minval=low, maxval=high))
  step = jnp.maximum(step, own.step_floor)
  return step + jnp.log(-jnp.expm1(-step))


def _first_slopes(
  own: Mamba2Config, count: int, key: jax.Array
) -> Float[Array, " N"]:
  low, high = own.slope_min, own.slope_max
  return jnp.log(jax.random.uniform(key, (count,), minval=low, maxval=high))
