"""The whole model over a long sequence: every token is an output.

The upper decoder follows the lower one, segment by segment, with its own
window caches carried and the chunks of all segments so far in one memory. A
token searches the chunks that ended before it, whatever the memory holds
beyond. Device arrays have the size of a segment; the search takes time that
grows with the position, so the total is quadratic in the length, with a small
factor: landmarks are few.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from hsa_jax.inference.caches import capacity_of
from hsa_jax.inference.midway import Journal
from hsa_jax.inference.stream import (
  SegmentReader,
  SegmentSource,
  append_chunks,
  load_ahead,
  read_context,
  tail_length,
)
from hsa_jax.memory import ChunkMemory
from hsa_jax.types import Carry, GroupCarry


class SequencePart(NamedTuple):
  """Outputs of a stretch of the sequence.

  Attributes:
    start: absolute index of its first token.
    stop: one beyond the last; what `hidden` holds behind it is filling.
    hidden: upper decoder's output, for `LanguageModel.head`.
  """

  start: int
  stop: int
  hidden: Float[Array, "B T D"]


class Passage(NamedTuple):
  """A stretch of the sequence, and all that it leaves behind.

  Attributes:
    part: outputs of the upper decoder.
    hidden: of the lower decoder.
    lower: what the lower decoder takes along.
    upper: what the upper decoder takes along.
    memory: with the chunks that are complete.
  """

  part: SequencePart
  hidden: Float[Array, "B T D"]
  lower: Carry
  upper: tuple[GroupCarry, ...]
  memory: ChunkMemory


def read_sequence(
  prefill: SegmentReader,
  source: SegmentSource,
  memory: ChunkMemory,
  *,
  length: int,
) -> Iterator[SequencePart]:
  """Equal to the full forward pass, at the device memory of a segment.

  Args:
    prefill: the compiled reader of segments.
    source: gives the tokens of a stretch; called in a background thread.
    memory: must be empty and have room for `length` tokens; filled on the way.
    length: tokens per sequence.

  Yields:
    The parts in order; together they cover every token.
  """
  for passage in read_through(prefill, source, memory, length=length):
    yield passage.part


def read_end(
  prefill: SegmentReader,
  source: SegmentSource,
  memory: ChunkMemory,
  *,
  length: int,
  num_outputs: int,
  advance: Callable[[int], None] = lambda tokens: None,
  journal: Journal | None = None,
) -> tuple[Float[Array, "B T D"], ChunkMemory]:
  """The last outputs of the upper decoder, by its suffix where it has one.

  Args:
    prefill: the compiled reader of segments.
    source: gives the tokens of a stretch; called in a background thread.
    memory: must be empty, or hold the chunks of `journal.midway`.
    length: tokens per sequence.
    num_outputs: how many are wanted; at most `length` are returned.
    advance: told the number of tokens per row after each segment.
    journal: see `read_context`; not used where there is no suffix.

  Returns:
    States for `LanguageModel.head`, and the memory with all chunks.
  """
  model = prefill.model
  if model.suffix_length(num_outputs) is not None:
    keep = tail_length(model, num_outputs, length)
    suffix, memory = read_context(
      prefill,
      source,
      memory,
      length=length,
      keep=keep,
      advance=advance,
      journal=journal,
    )
    hidden, _ = model.upper(
      jnp.asarray(suffix.hidden),
      memory,
      model.init_upper_carry(suffix.hidden.shape[0]),
      position=suffix.position,
    )
    return hidden[:, -num_outputs:], memory
  ends = []
  for passage in read_through(prefill, source, memory, length=length):
    start, stop, hidden = passage.part
    wanted = max(start, length - num_outputs)
    if wanted < stop:
      ends.append(hidden[:, wanted - start : stop - start])
    memory = passage.memory
    advance(stop - start)
  return jnp.concatenate(ends, axis=1), memory


def read_through(
  prefill: SegmentReader,
  source: SegmentSource,
  memory: ChunkMemory,
  *,
  length: int,
  room: int = 0,
) -> Iterator[Passage]:
  """`read_sequence`, with what it takes to go on behind each part.

  A passage may be used until the next one is asked for, which uses it up.

  Args:
    prefill: the compiled reader of segments.
    source: gives the tokens of a stretch; called in a background thread.
    memory: must be empty; filled on the way.
    length: tokens per sequence.
    room: tokens that may follow them.
  """
  model, capacity = prefill.model, capacity_of(length + room)
  lower: Any = model.init_carry(prefill.batch, capacity)
  upper = model.init_upper_carry(prefill.batch, capacity)
  for stretch, tokens in load_ahead(prefill, source, 0, length):
    out = prefill(lower, tokens, stretch)
    lower = out.carry
    memory = append_chunks(memory, out, stretch, prefill.chunk_size)
    hidden, upper = model.upper(
      out.hidden,
      memory,
      upper,
      position=stretch.start,
      reuse=model.num_reused(stretch.start, out.hidden.shape[1]),
      count=stretch.stop - stretch.start,
    )
    part = SequencePart(stretch.start, stretch.stop, hidden)
    states = prefill.caches(lower)
    yield Passage(part, out.hidden, states, upper, memory)
