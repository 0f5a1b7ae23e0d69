"""The whole model over a long sequence: every token is an output.

The upper decoder follows the lower one, segment by segment, with its own
window caches carried and the chunks of all segments so far in one memory. A
token searches the chunks that ended before it, whatever the memory holds
beyond. Device arrays have the size of a segment; the search takes time that
grows with the position, so the total is quadratic in the length, with a small
factor: landmarks are few.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from jaxtyping import Array, Float

from hsa_jax.inference.stream import (
  SegmentReader,
  SegmentSource,
  append_chunks,
  load_ahead,
)
from hsa_jax.memory import ChunkMemory


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
  model = prefill.model
  lower: Any = model.init_carry(prefill.batch)
  upper = model.init_upper_carry(prefill.batch)
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
    yield SequencePart(stretch.start, stretch.stop, hidden)
