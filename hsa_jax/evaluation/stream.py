"""Streaming evaluation: long contexts at the cost of the lower decoder.

The chunk memory depends on the lower decoder only, and the upper decoder mixes
tokens only through its sliding windows. So the context goes segment by segment
through ONE compiled program (lower decoder + chunk encoder), its chunks go to
a memory outside that program, and the upper decoder runs on the last

    A + (W - 1) * number of upper window layers

tokens alone: the last A outputs are exact. Compiled shapes, and with them
device memory, do not depend on the length of the context.
"""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from hsa_jax.config import ModelConfig
from hsa_jax.memory import ChunkMemory
from hsa_jax.models import LanguageModel
from hsa_jax.types import ChunkBlock

T = TypeVar("T")

SegmentSource = Callable[[int, int], Int[np.ndarray, "B T"]]
"""Tokens `start .. stop - 1` of every sequence of a batch."""


class PrefillOut(NamedTuple):
  """What one segment leaves behind.

  Attributes:
    carry: window caches of the lower decoder, for the next segment.
    hidden: lower decoder's output.
    block: chunks of the segment; None for a model without memory.
  """

  carry: Any
  hidden: Float[Array, "B T D"]
  block: ChunkBlock | None


class Suffix(NamedTuple):
  """The end of a prefilled sequence, on the host.

  Attributes:
    hidden: lower decoder's output for the last tokens.
    position: absolute index of the first of them.
  """

  hidden: Float[np.ndarray, "B T D"]
  position: int


class Prefill:
  """The one compiled program that reads every segment.

  Attributes:
    model: the language model.
    batch: rows of a segment.
    segment: tokens of a segment, a multiple of the chunk size.
    num_compilations: programs compiled so far; stays 1.
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
    self._program = jax.jit(self._run, donate_argnums=1)

  def __call__(
    self, carry: Any, tokens: Int[np.ndarray, "B T"], position: int
  ) -> PrefillOut:
    """Reads one segment of shape [batch, segment]; `carry` is used up.

    `position` is the absolute index of the segment's first token.
    """
    if tokens.shape != (self.batch, self.segment):
      raise ValueError(
        f"tokens of shape {tokens.shape}: the program reads"
        f" {(self.batch, self.segment)}"
      )
    return self._program(self.model, carry, tokens, np.int32(position))

  def warm_up(self) -> None:
    """Compiles the program, so that no measurement includes it."""
    tokens = np.zeros((self.batch, self.segment), np.int32)
    out = self(self.model.init_carry(self.batch), tokens, 0)
    jax.block_until_ready(out.hidden)

  def _run(
    self, model: LanguageModel, carry: Any, tokens: Array, position: Array
  ) -> PrefillOut:
    self.num_compilations += 1  # Python runs once per trace
    hidden, carry = model.lower(tokens, carry, position=position)
    block = model.encode(hidden) if self.has_memory else None
    return PrefillOut(carry, hidden, block)


def receptive_field(cfg: ModelConfig) -> int | None:
  """Tokens that one output depends on; None: the whole context."""
  if cfg.hsa.num_groups:
    return None
  layers = cfg.num_lower_layers + cfg.num_upper_layers
  return 1 + (cfg.window_size - 1) * layers


def tail_length(model: LanguageModel, num_logits: int, length: int) -> int:
  """Last hidden states to keep of a context of `length` tokens.

  Enough for `num_logits` exact outputs, and starting where a retrieval does.
  """
  start = max(length - model.suffix_length(num_logits), 0)
  return length - start // _stride(model.cfg) * _stride(model.cfg)


def first_token(cfg: ModelConfig, *, length: int, keep: int) -> int:
  """Where reading must start for `keep` exact last hidden states.

  A model with memory reads everything. Without one, what lies before its
  receptive field is skipped without changing any result.
  """
  field = receptive_field(cfg)
  return 0 if field is None else max(length - keep - (field - 1), 0)


def read_context(
  prefill: Prefill,
  source: SegmentSource,
  memory: ChunkMemory,
  *,
  length: int,
  keep: int,
  advance: Callable[[int], None] = lambda tokens: None,
) -> tuple[Suffix, ChunkMemory]:
  """Streams a batch of equally long sequences into `memory`.

  Args:
    prefill: the compiled program.
    source: gives the tokens of a stretch; called in a background thread.
    memory: where complete chunks go; must be empty.
    length: tokens per sequence.
    keep: how many last hidden states to return; at most `length` are.
    advance: told the number of tokens per row after each segment.

  Returns:
    The suffix on the host, and the memory that holds the chunks.
  """
  begin = first_token(prefill.model.cfg, length=length, keep=keep)
  spans = [
    (start, min(start + prefill.segment, length))
    for start in range(begin, length, prefill.segment)
  ]
  carry = prefill.model.init_carry(prefill.batch)
  tail: list[np.ndarray] = []
  pending: tuple[int, int, PrefillOut] | None = None
  segments = ((a, b, _padded(source(a, b), prefill)) for a, b in spans)
  for start, stop, tokens in prefetch(segments):
    out = prefill(carry, tokens, start)
    carry = out.carry
    # The device works on this segment while the previous one is put away.
    if pending is not None:
      memory = _put_away(pending, prefill, memory, tail, length - keep)
      advance(pending[1] - pending[0])
    pending = (start, stop, out)
  assert pending is not None, "a sequence has at least one token"
  memory = _put_away(pending, prefill, memory, tail, length - keep)
  advance(pending[1] - pending[0])
  hidden = np.concatenate(tail, axis=1)
  return Suffix(hidden, length - hidden.shape[1]), memory


def suffix_logits(
  model: LanguageModel, suffix: Suffix, memory: ChunkMemory, *, num_logits: int
) -> Float[Array, "B T V"]:
  """Exact logits of the last `num_logits` tokens, float32.

  Args:
    model: the language model.
    suffix: the last `tail_length(model, num_logits, length)` hidden states.
    memory: all complete chunks of the context.
    num_logits: A; fewer are returned if the sequence is shorter.
  """
  hidden = model.upper(jnp.asarray(suffix.hidden), memory, suffix.position)
  return _head(model, hidden[:, -num_logits:])


def prefetch(items: Iterable[T], *, depth: int = 2) -> Iterator[T]:
  """Yields `items`, made ahead in a background thread.

  An exception of the producer is raised in the consumer; a consumer that
  stops early ends the thread.
  """
  ready: queue.Queue[tuple[str, Any]] = queue.Queue(maxsize=depth)
  stop = threading.Event()

  def put(kind: str, value: Any) -> bool:
    while not stop.is_set():
      try:
        ready.put((kind, value), timeout=0.1)
        return True
      except queue.Full:
        continue
    return False

  def produce() -> None:
    try:
      for item in items:
        if not put("item", item):
          return
      put("end", None)
    except BaseException as error:  # handed over, raised by the consumer
      put("error", error)

  thread = threading.Thread(target=produce, daemon=True)
  thread.start()
  try:
    while (got := ready.get())[0] == "item":
      yield got[1]
    if got[0] == "error":
      raise got[1]
  finally:
    stop.set()
    thread.join()


def _stride(cfg: ModelConfig) -> int:
  return cfg.hsa.tokens_per_retrieval if cfg.hsa.num_groups else 1


@jax.jit
def _head(model: LanguageModel, hidden: Array) -> Array:
  return model.head(hidden)


def _padded(
  tokens: Int[np.ndarray, "B T"], prefill: Prefill
) -> Int[np.ndarray, "B T"]:
  """Rows and tokens up to the program's shape; the filling is never read."""
  rows = prefill.batch - tokens.shape[0]
  columns = prefill.segment - tokens.shape[1]
  padded = np.pad(np.asarray(tokens, np.int32), ((0, rows), (0, columns)))
  return padded


def _put_away(
  done: tuple[int, int, PrefillOut],
  prefill: Prefill,
  memory: ChunkMemory,
  tail: list[np.ndarray],
  tail_start: int,
) -> ChunkMemory:
  """Appends the segment's complete chunks; keeps hidden states of the tail."""
  start, stop, out = done
  if stop > tail_start:
    skip = max(tail_start - start, 0)
    tail.append(np.asarray(out.hidden)[:, skip : stop - start])
  if out.block is None:
    return memory
  complete = (stop - start) // prefill.chunk_size
  block = out.block
  if complete < block.landmarks.shape[1]:
    block = ChunkBlock(*(np.asarray(x)[:, :complete] for x in block))  # type: ignore[arg-type]
  return memory.append(block)
