"""Gated linear attention as a layer."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from hsa_jax.config import ModelConfig
from hsa_jax.models.layers import RMSNorm, heads, linear
from hsa_jax.models.recurrent import run_with_state
from hsa_jax.ops.gla import gla
from hsa_jax.parallel import split_rows
from hsa_jax.types import Limits, RecurrentState


class GatedLinearAttention(nnx.Module):
  """The mixer of arXiv 2312.06635, without a norm before it.

    log_decay = log sigmoid(expand_decay(reduce_decay(x)) + decay_bias) / 16
    out(silu(gate(x)) * norm(recurrence of query, key, value, log_decay))

  with the norm over each head and 16 for `gla.gate_normalizer`.

  Attributes:
    cfg: of the model.
  """

  def __init__(self, cfg: ModelConfig, *, rngs: nnx.Rngs):
    own = cfg.gla
    self.cfg = cfg
    keys, values = key_width(cfg), value_width(cfg)
    make = functools.partial(
      linear, scale=cfg.init_scale, dtype=cfg.compute_dtype, rngs=rngs
    )
    self.query = make(cfg.embed_dim, keys)
    self.key = make(cfg.embed_dim, keys)
    self.value = make(cfg.embed_dim, values)
    self.gate = make(cfg.embed_dim, values)
    self.reduce_decay = make(cfg.embed_dim, own.gate_rank)
    self.expand_decay = make(own.gate_rank, keys)
    self.decay_bias = nnx.Param(jnp.zeros((keys,), jnp.float32))
    self.norm = RMSNorm(values // own.num_heads, eps=cfg.norm_eps)
    self.out = make(values, cfg.embed_dim)

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
    count = self.cfg.gla.num_heads
    sizes = key_width(self.cfg) // count, value_width(self.cfg) // count
    return RecurrentState(jnp.zeros((batch, count, *sizes), jnp.float32), ())

  def _mix(
    self,
    x: jax.Array,
    state: RecurrentState,
    count: jax.Array | int | None,
  ) -> tuple[jax.Array, RecurrentState]:
    own = self.cfg.gla

    def split(x: jax.Array) -> jax.Array:
      return split_rows(heads(x, own.num_heads), tensor=-2)

    decay = self.expand_decay(self.reduce_decay(x)).astype(jnp.float32)
    decay = decay + jnp.broadcast_to(self.decay_bias[...], decay.shape)
    read, memory = gla(
      split(self.query(x)),
      split(self.key(x)),
      split(self.value(x)),
      split(jax.nn.log_sigmoid(decay) / own.gate_normalizer),
      state.memory,
      chunk=own.chunk_size,
      count=count,
    )
    read = self.norm(read).reshape(*x.shape[:2], -1)
    gated = read * jax.nn.silu(self.gate(x).astype(jnp.float32))
    return self.out(gated.astype(x.dtype)), RecurrentState(memory, ())


def key_width(cfg: ModelConfig) -> int:
  """Width of all queries; keys and decays are as wide."""
  return int(cfg.gla.expand_keys * cfg.embed_dim)


def value_width(cfg: ModelConfig) -> int:
  """Width of all values and gates."""
  return int(cfg.gla.expand_values * cfg.embed_dim)
