"""One token more: the model's state after a prompt, and the step that moves it.

State of a decoder after `position` tokens: what every layer remembers, the
lower states of the unfinished chunk, the retrieval that a block of tokens
shares, and the chunk memory. A step reads one token and costs the same at any
position, but for the search over landmarks. A chunk enters the memory when its
last token has been read.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from hsa_jax.inference.caches import capacity_of
from hsa_jax.inference.midway import Journal
from hsa_jax.inference.sequence import read_through
from hsa_jax.inference.stream import (
  SegmentReader,
  SegmentSource,
  Suffix,
  read_context,
  tail_length,
)
from hsa_jax.memory import ChunkMemory
from hsa_jax.models import LanguageModel
from hsa_jax.models.compiled import jit_of_module
from hsa_jax.models.marks import alignment, mark_every
from hsa_jax.types import Carry, ChunkBlock, GroupCarry

Passed = Callable[[int, int, int], None]
"""Told of each stretch of the upper decoder: first token, one beyond the last,
and how many of its first tokens reuse the retrieval before it."""


class DecodeState(NamedTuple):
  """All that the past leaves in arrays of fixed shape, besides the memory.

  Attributes:
    lower: what the lower layers remember.
    upper: caches and shared retrievals of the upper groups.
    chunk: lower states of the unfinished chunk, then room; `S = 0` without
      memory.
  """

  lower: Carry
  upper: tuple[GroupCarry, ...]
  chunk: Float[Array, "B S D"]


class Decoder:
  """A batch of equally long sequences that grows token by token.

  Attributes:
    model: the language model.
    memory: the complete chunks.
    position: tokens read so far.
    logits: of the next token, `[B, V]` float32.
    capacity: tokens that it can have in all; None: any number.
  """

  def __init__(
    self,
    model: LanguageModel,
    memory: ChunkMemory,
    state: DecodeState,
    position: int,
    logits: Float[Array, "B V"],
    *,
    capacity: int | None = None,
  ):
    self.model, self.memory, self.state = model, memory, state
    self.position, self.logits = position, logits
    self.capacity = capacity

  def step(self, tokens: Int[Array, " B"] | Int[np.ndarray, " B"]) -> None:
    """Reads the next token of every sequence.

    Raises:
      ValueError: where the caches of whole contexts are full.
    """
    if self.capacity is not None and self.position >= self.capacity:
      raise ValueError(
        f"the caches have room for {self.capacity} tokens; say how many will"
        " follow the prompt: prefill_decoder(..., room=)"
      )
    step = _step if is_value(self.memory) else decode_step
    self.logits, self.state = step(
      self.model,
      self.memory,
      self.state,
      tokens,
      self.position,
      reuse=self.model.num_reused(self.position, 1),
    )
    self.position += 1
    size = self.state.chunk.shape[1]
    if size and self.position % size == 0:
      begin = np.int32(self.position - size)
      block = _encode(self.model, self.state.chunk, begin)
      self.memory = self.memory.append(block)


def prefill_decoder(
  prefill: SegmentReader,
  source: SegmentSource,
  memory: ChunkMemory,
  *,
  length: int,
  advance: Callable[[int], None] = lambda tokens: None,
  journal: Journal | None = None,
  room: int = 0,
  passed: Passed = lambda start, stop, reuse: None,
) -> Decoder:
  """Reads a prompt and stands ready to continue it.

  Args:
    prefill: the compiled reader of segments.
    source: gives the tokens of a stretch; called in a background thread.
    memory: must be empty, or hold the chunks of `journal.midway`, with room for
      the prompt and what will follow.
    length: tokens of the prompt, at least 1.
    advance: told the number of tokens per row after each segment.
    journal: see `read_context`; not used where an upper layer sees the whole
      context.
    room: tokens that will be read behind the prompt; only layers that see the
      whole context need to know.
    passed: told of every stretch of the upper decoder.

  Raises:
    ValueError: for an empty prompt.
  """
  if length < 1:
    raise ValueError(f"length = {length}: a prompt has at least one token")
  model = prefill.model
  capacity = capacity_of(length + room) if model.needs_capacity else None
  if model.suffix_length(1) is None:
    memory, state, logits = _read_all(
      prefill, source, memory, length, room, advance, passed
    )
    return Decoder(model, memory, state, length, logits, capacity=capacity)
  partial = length % prefill.chunk_size
  tail = tail_length(model, 1, length)
  suffix, memory = read_context(
    prefill,
    source,
    memory,
    length=length,
    keep=max(tail, partial),
    advance=advance,
    journal=journal,
    room=room,
  )
  chunk = _unfinished(model, suffix.hidden, partial)
  logits, upper = _read_suffix(model, suffix, memory, tail)
  passed(length - tail, length, 0)
  state = DecodeState(suffix.carry, upper, chunk)
  return Decoder(model, memory, state, length, logits, capacity=capacity)


def _read_all(
  prefill: SegmentReader,
  source: SegmentSource,
  memory: ChunkMemory,
  length: int,
  room: int,
  advance: Callable[[int], None],
  passed: Passed,
) -> tuple[ChunkMemory, DecodeState, Float[Array, "B V"]]:
  """Every token through both decoders: no suffix of the upper one suffices."""
  model, last = prefill.model, None
  for last in read_through(prefill, source, memory, length=length, room=room):
    start, stop, hidden = last.part
    advance(stop - start)
    passed(start, stop, model.num_reused(start, hidden.shape[1]))
  assert last is not None, "a prompt has at least one token"
  count = last.part.stop - last.part.start
  chunk = _unfinished(
    model, np.asarray(last.hidden)[:, :count], length % prefill.chunk_size
  )
  logits = _logits_at(model, last.part.hidden, count - 1)
  return last.memory, DecodeState(last.lower, last.upper, chunk), logits


def decode_step(
  model: LanguageModel,
  memory: ChunkMemory,
  state: DecodeState,
  tokens: Int[Array, " B"] | Int[np.ndarray, " B"],
  position: Int[Array, ""] | int,
  *,
  reuse: int,
) -> tuple[Float[Array, "B V"], DecodeState]:
  """Logits after one more token, and the state after it.

  Compiled as a whole where the memory is made of device arrays, else in
  pieces of fixed shape around the calls of the memory.

  Args:
    model: the language model.
    memory: all chunks that ended before this token.
    state: after the tokens before.
    tokens: one per sequence.
    position: absolute index of the token.
    reuse: `model.num_reused(position, 1)`, static: 1 if no search is due.
  """
  # Only landmarks that the model inserts let this program hang on the place.
  place = {"reuse": reuse} if mark_every(model.cfg) else {}
  hidden, state = _read_token(model, state, tokens, position, **place)
  hidden, upper = model.upper(
    hidden, memory, state.upper, position=position, reuse=reuse
  )
  return _logits_at(model, hidden, 0), state._replace(upper=upper)


_step = jit_of_module(decode_step, static_argnames=("reuse",))


def is_value(memory: ChunkMemory) -> bool:
  """Whether the memory is arrays on the device, fit for `jax.jit`."""
  leaves = jax.tree.leaves(memory)
  return all(isinstance(leaf, jax.Array | int) for leaf in leaves)


@functools.partial(jit_of_module, static_argnames=("reuse",))
def _read_token(
  model: LanguageModel,
  state: DecodeState,
  tokens: Array,
  position: Array,
  *,
  reuse: int | None = None,
) -> tuple[Array, DecodeState]:
  """The lower decoder on one token per row; its state joins the chunk."""
  hidden, lower = model.lower(
    tokens[:, None], state.lower, position=position, reuse=reuse
  )
  chunk, size = state.chunk, state.chunk.shape[1]
  if size:
    chunk = lax.dynamic_update_slice_in_dim(
      chunk, hidden, position % size, axis=1
    )
  return hidden, DecodeState(lower, state.upper, chunk)


@jit_of_module
def _encode(model: LanguageModel, chunk: Array, position: Array) -> ChunkBlock:
  return model.encode(chunk, position=position)


def _unfinished(
  model: LanguageModel, hidden: Float[np.ndarray, "B T D"], partial: int
) -> Float[Array, "B S D"]:
  """The last `partial` states, with room for the rest of their chunk."""
  cfg = model.cfg
  size = cfg.hsa.chunk_size if cfg.hsa.num_groups else 0
  batch, length, dim = hidden.shape
  chunk = np.zeros((batch, size, dim), hidden.dtype)
  chunk[:, :partial] = hidden[:, length - partial :]
  return jnp.asarray(chunk)


def _read_suffix(
  model: LanguageModel, suffix: Suffix, memory: ChunkMemory, tail: int
) -> tuple[Float[Array, "B V"], tuple[GroupCarry, ...]]:
  """The upper decoder on the last `tail` tokens, in one shape for all."""
  hidden: Any = suffix.hidden[:, suffix.hidden.shape[1] - tail :]
  batch, length = hidden.shape[0], suffix.position + suffix.hidden.shape[1]
  needed = model.suffix_length(1)
  assert needed is not None, "a model without a suffix is read through"
  room = needed + alignment(model.cfg) - 1
  hidden = np.pad(hidden, ((0, 0), (0, room - tail), (0, 0)))
  hidden, upper = model.upper(
    jnp.asarray(hidden),
    memory,
    model.init_upper_carry(batch),
    position=length - tail,
    count=tail,
  )
  return _logits_at(model, hidden, tail - 1), upper


@jit_of_module
def _logits_at(model: LanguageModel, hidden: Array, index: int) -> Array:
  last = lax.dynamic_slice_in_dim(hidden, index, 1, axis=1)
  return model.head(last)[:, 0]
