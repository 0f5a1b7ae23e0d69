"""Streaming: long contexts at the cost of the lower decoder.

The chunk memory depends on the lower decoder only, and the upper decoder mixes
tokens only through its sliding windows. So the context goes segment by segment
through ONE compiled program (lower decoder + chunk encoder), its chunks go to
a memory outside that program, and the upper decoder runs on the last

    A + (W - 1) * number of upper window layers

tokens alone: the last A outputs are exact. Compiled shapes, and with them
device memory, do not depend on the length of the context.

Layers that see the whole context (`config.Mixer`) change that: their caches are
made for its length, and above the memory they leave no such suffix; then every
token goes through the upper decoder (`sequence.py`).
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from hsa_jax.config import ModelConfig, lower_layers
from hsa_jax.inference.caches import capacity_of
from hsa_jax.inference.midway import Journal, Midway
from hsa_jax.inference.prefetch import prefetch
from hsa_jax.memory import ChunkMemory
from hsa_jax.models import LanguageModel
from hsa_jax.models.compiled import jit_of_module
from hsa_jax.models.marks import alignment
from hsa_jax.models.mixers import reach_of
from hsa_jax.parallel import prefill_compiler_options
from hsa_jax.types import Carry, ChunkBlock

SegmentSource = Callable[[int, int], Int[np.ndarray, "B T"]]
"""Tokens `start .. stop - 1` of every sequence of a batch."""


class Stretch(NamedTuple):
  """What one call of a reader covers.

  Attributes:
    first: first token that is read.
    start: first token whose state is wanted; those before it are its past.
    stop: one beyond the last token.
  """

  first: int
  start: int
  stop: int


class PrefillOut(NamedTuple):
  """What one stretch leaves behind.

  Attributes:
    carry: what the next call takes; `SegmentReader.caches` knows the states of
      layers in it.
    hidden: lower decoder's output from `start` on; beyond `stop`, filling.
    block: chunks of `hidden`; None for a model without memory.
  """

  carry: Any
  hidden: Float[Array, "B T D"]
  block: ChunkBlock | None


class Suffix(NamedTuple):
  """The end of a prefilled sequence, on the host.

  Attributes:
    hidden: lower decoder's output for the last tokens.
    position: absolute index of the first of them.
    carry: what the lower decoder remembers after the last token.
  """

  hidden: Float[np.ndarray, "B T D"]
  position: int
  carry: Any


class SegmentReader(Protocol):
  """The lower decoder over a long sequence, some tokens at a time.

  Attributes:
    model: the language model.
    batch: rows of a stretch.
    chunk_size: stretches begin at multiples of it; 1 without memory.
    num_compilations: programs compiled so far.
  """

  model: LanguageModel
  batch: int
  chunk_size: int
  num_compilations: int

  def stretches(self, begin: int, length: int) -> Iterator[Stretch]:
    """Calls that together cover the tokens `begin .. length - 1`."""
    ...

  def load(self, source: SegmentSource, stretch: Stretch) -> Any:
    """The input of a call, padded to the program's shape."""
    ...

  def __call__(self, carry: Any, tokens: Any, stretch: Stretch) -> PrefillOut:
    """Reads a stretch; `carry` is used up."""
    ...

  def caches(self, carry: Any) -> Carry:
    """What the lower decoder remembers, in what a call left behind."""
    ...

  def warm_up(self, length: int = 0) -> None:
    """Compiles the programs, so that no measurement includes it.

    Args:
      length: tokens of a context; programs depend on it where a layer sees all
        of it.
    """
    ...


class Prefill:
  """The one compiled program that reads every segment, one after the other.

  Attributes:
    model: the language model.
    batch: rows of a segment.
    segment: tokens of a segment, a multiple of the chunk size.
    num_compilations: programs compiled so far; stays 1, but for models with
      caches as long as the context.
  """

  def __init__(self, model: LanguageModel, *, batch: int, segment: int):
    """Makes the program; it is compiled by the first call.

    Raises:
      ValueError: unless `segment` is a positive multiple of the chunk size.
    """
    self.model = model
    self.batch, self.segment = batch, segment
    self.has_memory = model.cfg.hsa.num_groups > 0
    self.chunk_size = model.cfg.hsa.chunk_size if self.has_memory else 1
    if segment < 1 or segment % self.chunk_size:
      raise ValueError(
        f"segment = {segment}: must be a multiple of {self.chunk_size}"
      )
    self.num_compilations = 0
    self._program = jit_of_module(
      self._run,
      donate_argnums=(1,),
      compiler_options=prefill_compiler_options(),
    )

  def stretches(self, begin: int, length: int) -> Iterator[Stretch]:
    """Segments from `begin` on, the last one ragged."""
    for start in range(begin, length, self.segment):
      yield Stretch(start, start, min(start + self.segment, length))

  def load(
    self, source: SegmentSource, stretch: Stretch
  ) -> Int[np.ndarray, "B T"]:
    """Tokens of a segment, padded to [batch, segment]."""
    tokens = source(stretch.first, stretch.stop)
    return pad_tokens(tokens, self.batch, self.segment)

  def __call__(
    self, carry: Any, tokens: Int[np.ndarray, "B T"], stretch: Stretch
  ) -> PrefillOut:
    """Reads one segment of shape [batch, segment]; `carry` is used up."""
    if tokens.shape != (self.batch, self.segment):
      raise ValueError(
        f"tokens of shape {tokens.shape}: the program reads"
        f" {(self.batch, self.segment)}"
      )
    position, count = stretch.start, stretch.stop - stretch.start
    return self._program(
      self.model, carry, tokens, np.int32(position), np.int32(count)
    )

  def caches(self, carry: Carry) -> Carry:
    """The states of the layers are all that a call leaves behind."""
    return carry

  def warm_up(self, length: int = 0) -> None:
    """Compiles the program, so that no measurement includes it."""
    tokens = np.zeros((self.batch, self.segment), np.int32)
    carry = self.model.init_carry(self.batch, capacity_of(length))
    out = self(carry, tokens, Stretch(0, 0, self.segment))
    jax.block_until_ready(out.hidden)

  def _run(
    self,
    model: LanguageModel,
    carry: Any,
    tokens: Array,
    position: Array,
    count: Array,
  ) -> PrefillOut:
    self.num_compilations += 1  # Python runs once per trace
    hidden, carry = model.lower(tokens, carry, position=position, count=count)
    block = None
    if self.has_memory:
      block = model.encode(hidden, position=position)
    return PrefillOut(carry, hidden, block)


def receptive_field(cfg: ModelConfig) -> int | None:
  """Tokens that one output depends on; None: the whole context."""
  reach = None if cfg.hsa.num_groups else reach_of(lower_layers(cfg))
  return None if reach is None else 1 + reach


def tail_length(model: LanguageModel, num_logits: int, length: int) -> int:
  """Last hidden states to keep of a context of `length` tokens.

  Enough for `num_logits` exact outputs, and starting where a retrieval does:
  all of them, where an upper layer sees the whole context.
  """
  suffix = model.suffix_length(num_logits)
  start = 0 if suffix is None else max(length - suffix, 0)
  step = alignment(model.cfg)
  return length - start // step * step


def first_token(cfg: ModelConfig, *, length: int, keep: int) -> int:
  """Where reading must start for `keep` exact last hidden states.

  A model with memory reads everything. Without one, what lies before its
  receptive field is skipped without changing any result.
  """
  field = receptive_field(cfg)
  return 0 if field is None else max(length - keep - (field - 1), 0)


def read_context(
  prefill: SegmentReader,
  source: SegmentSource,
  memory: ChunkMemory,
  *,
  length: int,
  keep: int,
  advance: Callable[[int], None] = lambda tokens: None,
  journal: Journal | None = None,
  room: int = 0,
) -> tuple[Suffix, ChunkMemory]:
  """Streams a batch of equally long sequences into `memory`.

  Args:
    prefill: reads the segments, one after the other or side by side.
    source: gives the tokens of a stretch; called in a background thread.
    memory: where complete chunks go; must be empty, or hold the chunks of
      `journal.midway`.
    length: tokens per sequence.
    keep: how many last hidden states to return; at most `length` are.
    advance: told the number of tokens per row after each segment.
    journal: where to go on, and where to note how far it went. The reader must
      cut the context into the same stretches as the one that was interrupted.
    room: tokens that may follow the context.

  Returns:
    The suffix on the host, and the memory that holds the chunks.
  """
  begin = first_token(prefill.model.cfg, length=length, keep=keep)
  capacity = capacity_of(length + room)
  carry: Any = prefill.model.init_carry(prefill.batch, capacity)
  tail: list[np.ndarray] = []
  done = begin
  if journal is not None and journal.midway is not None:
    done, carry, tail[:] = journal.midway

  def put_away(stretch: Stretch, out: PrefillOut) -> None:
    nonlocal memory
    start, stop = max(stretch.start, length - keep), stretch.stop
    if start < stop:
      hidden = np.asarray(out.hidden)
      tail.append(hidden[:, start - stretch.start : stop - stretch.start])
    memory = append_chunks(memory, out, stretch, prefill.chunk_size)
    advance(stop - stretch.start)

  pending: tuple[Stretch, PrefillOut] | None = None
  for stretch, tokens in load_ahead(prefill, source, begin, length, done=done):
    if pending is not None and journal is not None and journal.due():
      # Now, before the next call uses up the caches.
      put_away(*pending)
      stop, pending = pending[0].stop, None
      caches = jax.device_get(prefill.caches(carry))
      journal.save(Midway(stop, caches, tuple(tail)))
    out = prefill(carry, tokens, stretch)
    carry = out.carry
    # The device works on this segment while the previous one is put away.
    if pending is not None:
      put_away(*pending)
    pending = (stretch, out._replace(carry=None))
  assert pending is not None, "a sequence has at least one token"
  put_away(*pending)
  hidden = np.concatenate(tail, axis=1)
  position = length - hidden.shape[1]
  return Suffix(hidden, position, prefill.caches(carry)), memory


def load_ahead(
  prefill: SegmentReader,
  source: SegmentSource,
  begin: int,
  length: int,
  *,
  done: int = 0,
) -> Iterator[tuple[Stretch, Any]]:
  """Every stretch with its tokens, loaded in a background thread.

  Those before `done`, where one of them ended, are left out.
  """
  stretches = (s for s in prefill.stretches(begin, length) if s.start >= done)
  return prefetch((s, prefill.load(source, s)) for s in stretches)


def append_chunks(
  memory: ChunkMemory, out: PrefillOut, stretch: Stretch, chunk_size: int
) -> ChunkMemory:
  """`memory` with the complete chunks of a stretch."""
  if out.block is None:
    return memory
  block, complete = out.block, (stretch.stop - stretch.start) // chunk_size
  if complete < block.landmarks.shape[1]:
    block = ChunkBlock(*(np.asarray(x)[:, :complete] for x in block))  # type: ignore[arg-type]
  return memory.append(block)


def suffix_logits(
  model: LanguageModel, suffix: Suffix, memory: ChunkMemory, *, num_logits: int
) -> Float[Array, "B T V"]:
  """Exact logits of the last `num_logits` tokens, float32.

  Args:
    model: the language model.
    suffix: the last `tail_length(model, num_logits, length)` hidden states, of
      a model with a `suffix_length`.
    memory: all complete chunks of the context.
    num_logits: A; fewer are returned if the sequence is shorter.
  """
  hidden, _ = model.upper(
    jnp.asarray(suffix.hidden),
    memory,
    model.init_upper_carry(suffix.hidden.shape[0]),
    position=suffix.position,
  )
  return head(model, hidden[:, -num_logits:])


@jax.jit
def head(model: LanguageModel, hidden: Array) -> Array:
  """Logits of some outputs, compiled."""
  return model.head(hidden)


def pad_tokens(
  tokens: Int[np.ndarray, "B T"], batch: int, length: int
) -> Int[np.ndarray, "B T"]:
  """Rows and tokens up to a program's shape; the filling is never read."""
  missing = ((0, batch - tokens.shape[0]), (0, length - tokens.shape[1]))
  return np.pad(np.asarray(tokens, np.int32), missing)
