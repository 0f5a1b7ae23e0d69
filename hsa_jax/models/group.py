"""One group of the upper decoder on a stretch of tokens.

The memory may live outside of any compiled program, so a group is three pieces
around the two calls of the memory:

    ask -> memory.search -> settle -> memory.read -> answer

Each piece is compiled by itself; inside an outer `jax.jit` they melt into it.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int

from hsa_jax.config import ModelConfig, group_layers
from hsa_jax.models.attention import (
  Blocks,
  build_blocks,
  empty_state,
  run_blocks,
)
from hsa_jax.models.compiled import jit_of_module
from hsa_jax.models.encoder import retrieval_heads
from hsa_jax.models.hsa import Chosen, HsaBlock, per_memory_head
from hsa_jax.models.marks import asks_ahead, stream_stride
from hsa_jax.ops.select import empty_selection, join_selections
from hsa_jax.types import (
  Carry,
  GroupCarry,
  Limits,
  Searchable,
  Selection,
  WindowCache,
)


class Question(NamedTuple):
  """What a stretch wants of the memory.

  Attributes:
    x: the stream, past the block's own window.
    retrieval: one query per row that retrieves; None: another block leads.
    num_visible: chunks that each of these may choose from.
    read: one query per row.
  """

  x: Float[Array, "B T D"]
  retrieval: Float[Array, "B r G R"] | None
  num_visible: Int[Array, " r"] | None
  read: Float[Array, "B T N H"]


class HsaGroup(nnx.Module):
  """One read of the memory, then its share of layers.

  These are called `window_blocks` whichever they are: a name of checkpoints.
  """

  def __init__(self, cfg: ModelConfig, index: int, *, rngs: nnx.Rngs):
    leads = index % cfg.hsa.groups_per_retrieval == 0
    self.block = HsaBlock(cfg, leads=leads, rngs=rngs)
    layers = group_layers(cfg, index)
    # None rather than a stack of none: files hold no empty arrays.
    self.window_blocks: Blocks | None = (
      build_blocks(cfg, layers, rngs.params()) if layers else None
    )
    self.cfg = cfg

  def __call__(
    self,
    x: Float[Array, "B T D"],
    memory: Searchable,
    carry: GroupCarry,
    *,
    position: jax.Array | int,
    ask: int,
    count: jax.Array | int | None,
    chosen: Chosen | None = None,
  ) -> tuple[Float[Array, "B T D"], GroupCarry, Chosen]:
    """The next stretch of the stream; see `LanguageModel.upper`.

    Args:
      x: the stream.
      memory: chunks.
      carry: what was remembered before it.
      position: index of its first row in the stream.
      ask: the first of its rows that retrieves, static.
      count: leading rows that are real; None: all.
      chosen: by the group that leads; None for that group itself.

    Returns:
      The stream, what is remembered, and what its rows read.
    """
    block, hsa = self.block, self.cfg.hsa
    asked, cache = _ask(block, x, carry.block, position, count, ask=ask)
    last = None
    if block.leads:
      found = None
      if ask < x.shape[1]:
        found = memory.search(
          asked.retrieval, num_visible=asked.num_visible, top_k=hsa.top_k
        )
      chosen, last = _settle(
        block, found, carry.selection, count, length=x.shape[1], ask=ask
      )
    assert chosen is not None, "a group that does not lead is told"
    read = memory.read(asked.read, *chosen, sink=hsa.sink)
    x, layers = _answer(self, asked.x, read, carry.layers, position, count)
    return x, GroupCarry(cache, layers, last), chosen

  def run_layers(
    self,
    x: Float[Array, "B T D"],
    limits: Limits = Limits(),
    states: Carry = None,
  ) -> tuple[Float[Array, "B T D"], Carry]:
    """The group's own layers on a whole sequence, from states if there are."""
    if self.window_blocks is None:
      return x, states
    return run_blocks(
      self.window_blocks, x, states, limits=limits, remat=self.cfg.remat
    )

  def init_carry(self, batch: int, capacity: int = 0) -> GroupCarry:
    """What the group remembers before the first token: nothing."""
    cfg = self.cfg
    selection = None
    if cfg.hsa.tokens_per_retrieval > 1 and self.block.leads:
      lead = (batch, 1, retrieval_heads(cfg))
      selection = empty_selection(lead, cfg.hsa.top_k)
    block, layers = None, None
    if cfg.hsa.block_window:
      block = self.block.window.init_state(batch)
    if self.window_blocks is not None:
      layers = empty_state(self.window_blocks, batch, capacity)
    return GroupCarry(block, layers, selection)


@functools.partial(jit_of_module, static_argnames=("ask",))
def _ask(
  block: HsaBlock,
  x: jax.Array,
  cache: WindowCache | None,
  position: jax.Array | int,
  count: jax.Array | int | None,
  *,
  ask: int,
) -> tuple[Question, WindowCache | None]:
  entering, retrieval, visible = x, None, None
  x, cache = block.attend(x, cache, position, Limits(), count)
  if block.leads:
    stride, length = stream_stride(block.cfg), x.shape[1]
    asking = block.asking(entering, x)
    retrieval = block.retrieval.make_query(asking[:, ask::stride])
    visible = block.num_visible(position + jnp.arange(ask, length, stride))
  read = block.read_query(x, position)
  return Question(x, retrieval, visible, read), cache


@functools.partial(jit_of_module, static_argnames=("length", "ask"))
def _settle(
  block: HsaBlock,
  found: Selection | None,
  before: Selection | None,
  count: jax.Array | int | None,
  *,
  length: int,
  ask: int,
) -> tuple[Chosen, Selection | None]:
  """Chunks and weights of every row, and the retrieval to remember."""
  cfg = block.cfg
  if before is None:
    assert found is not None, "every token retrieves"
    selection, last = found, None
  else:
    rows = before if found is None else join_selections(before, found)
    # Row 0 is the retrieval of the stretch before.
    since = np.arange(length) - ask
    latest = np.maximum(since, -1) // stream_stride(cfg) + 1
    # A mark reads what the mark before it found.
    served = np.maximum(since - asks_ahead(cfg), -1) // stream_stride(cfg) + 1
    selection = Selection(*(x[:, served] for x in rows))
    newest = jnp.asarray(latest)[(length if count is None else count) - 1]
    last = Selection(
      *(lax.dynamic_slice_in_dim(x, newest, 1, axis=1) for x in rows)
    )
  selection = per_memory_head(selection, cfg.hsa.num_memory_heads)
  return Chosen(selection, block.retrieval.weigh(selection)), last


@jit_of_module
def _answer(
  group: HsaGroup,
  x: jax.Array,
  read: jax.Array,
  layers: Carry,
  position: jax.Array | int,
  count: jax.Array | int | None,
) -> tuple[jax.Array, Carry]:
  x = group.block.fuse(x, group.block.project(read))
  if group.window_blocks is None:
    return x, None
  return run_blocks(
    group.window_blocks, x, layers, position=position, count=count
  )
