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
from hsa_jax.models.hsa import HsaBlock, per_memory_head
from hsa_jax.ops.select import empty_selection
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
    retrieval: one query per token that retrieves.
    num_visible: chunks that each of these may choose from.
    read: one query per token.
  """

  x: Float[Array, "B T D"]
  retrieval: Float[Array, "B r G R"]
  num_visible: Int[Array, " r"]
  read: Float[Array, "B T N H"]


class HsaGroup(nnx.Module):
  """One read of the memory, then its share of layers.

  These are called `window_blocks` whichever they are: a name of checkpoints.
  """

  def __init__(self, cfg: ModelConfig, index: int, *, rngs: nnx.Rngs):
    self.block = HsaBlock(cfg, rngs=rngs)
    layers = group_layers(cfg, index)
    self.window_blocks: Blocks = build_blocks(cfg, layers, rngs.params())
    self.cfg = cfg

  def __call__(
    self,
    x: Float[Array, "B T D"],
    memory: Searchable,
    carry: GroupCarry,
    *,
    position: jax.Array | int,
    reuse: int,
    count: jax.Array | int | None,
  ) -> tuple[Float[Array, "B T D"], GroupCarry]:
    """The next stretch of tokens; see `LanguageModel.upper`."""
    block, hsa = self.block, self.cfg.hsa
    asked, cache = _ask(block, x, carry.block, position, count, reuse=reuse)
    found = None
    if reuse < x.shape[1]:
      found = memory.search(
        asked.retrieval, num_visible=asked.num_visible, top_k=hsa.top_k
      )
    selection, weights, last = _settle(
      block, found, carry.selection, count, length=x.shape[1], reuse=reuse
    )
    read = memory.read(asked.read, selection, weights, sink=hsa.sink)
    x, layers = _answer(self, asked.x, read, carry.layers, position, count)
    return x, GroupCarry(cache, layers, last)

  def run_layers(
    self,
    x: Float[Array, "B T D"],
    limits: Limits = Limits(),
    states: Carry = None,
  ) -> tuple[Float[Array, "B T D"], Carry]:
    """The group's own layers on a whole sequence, from states if there are."""
    return run_blocks(
      self.window_blocks, x, states, limits=limits, remat=self.cfg.remat
    )

  def init_carry(self, batch: int, capacity: int = 0) -> GroupCarry:
    """What the group remembers before the first token: nothing."""
    cfg = self.cfg
    selection = None
    if cfg.hsa.tokens_per_retrieval > 1:
      lead = (batch, 1, retrieval_heads(cfg))
      selection = empty_selection(lead, cfg.hsa.top_k)
    return GroupCarry(
      self.block.window.init_state(batch) if cfg.hsa.block_window else None,
      empty_state(self.window_blocks, batch, capacity),
      selection,
    )


@functools.partial(jit_of_module, static_argnames=("reuse",))
def _ask(
  block: HsaBlock,
  x: jax.Array,
  cache: WindowCache | None,
  position: jax.Array | int,
  count: jax.Array | int | None,
  *,
  reuse: int,
) -> tuple[Question, WindowCache | None]:
  x, cache = block.attend(x, cache, position, Limits(), count)
  stride, length = block.cfg.hsa.tokens_per_retrieval, x.shape[1]
  retrieval = block.retrieval.make_query(x[:, reuse::stride])
  visible = block.num_visible(position + jnp.arange(reuse, length, stride))
  return Question(x, retrieval, visible, block.read_query(x)), cache


@functools.partial(jit_of_module, static_argnames=("length", "reuse"))
def _settle(
  block: HsaBlock,
  found: Selection | None,
  before: Selection | None,
  count: jax.Array | int | None,
  *,
  length: int,
  reuse: int,
) -> tuple[Selection, jax.Array | None, Selection | None]:
  """Chunks and weights of every token, and the retrieval to remember."""
  hsa = block.cfg.hsa
  if before is None:
    assert found is not None, "every token retrieves"
    selection, last = found, None
  else:
    rows = before if found is None else _join(before, found)
    # Row 0 is the retrieval of the stretch before.
    row = np.maximum(np.arange(length) - reuse, -1) // hsa.tokens_per_retrieval
    row = jnp.asarray(row + 1)
    selection = Selection(*(x[:, row] for x in rows))
    newest = row[(length if count is None else count) - 1]
    last = Selection(
      *(lax.dynamic_slice_in_dim(x, newest, 1, axis=1) for x in rows)
    )
  selection = per_memory_head(selection, hsa.num_memory_heads)
  return selection, block.retrieval.weigh(selection), last


def _join(before: Selection, found: Selection) -> Selection:
  pairs = zip(before, found, strict=True)
  return Selection(*(jnp.concatenate(pair, axis=1) for pair in pairs))


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
  return run_blocks(
    group.window_blocks, x, layers, position=position, count=count
  )
