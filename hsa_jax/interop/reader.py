"""Hidden states of texts of any length, in a few compiled shapes.

Three ways to the same numbers:

  whole     up to `Ways.segment` tokens: rows of one forward pass, filled up at
            the end to one of a few lengths, which no earlier output sees
  suffix    longer, with few outputs asked for: streamed into a chunk memory,
            then the upper decoder on the suffix that determines them
  sequence  longer, with many outputs or no such suffix: streamed through both
            decoders

Device arrays never exceed a batch of segments.
"""

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from hsa_jax.inference import (
  Decoder,
  Prefill,
  plan_context,
  prefill_decoder,
  read_context,
  read_sequence,
  tail_length,
)
from hsa_jax.inference.sequence import SequencePart
from hsa_jax.memory import (
  ChunkMemory,
  Home,
  KvDtype,
  Plan,
  available,
  open_memory,
)
from hsa_jax.models import LanguageModel
from hsa_jax.models.compiled import jit_of_module
from hsa_jax.models.marks import alignment

HOMES = (Home.AUTO, Home.DEVICE, Home.HOST, Home.DISK)
_LEAST = 64  # tokens of the smallest program
_MAX_SUFFIX = 512  # outputs; more are read as a sequence


class Ways(NamedTuple):
  """How texts are read: speed and room, never an answer, but for `kv_dtype`.

  Attributes:
    segment: tokens per call, a multiple of the chunk size.
    batch: short texts per call.
    home: where the chunks of long texts live; one of `HOMES`.
    kv_dtype: how host and disk store keys and values.
    folder: for the file of the disk home, removed after each text.
  """

  segment: int = 4096
  batch: int = 8
  home: Home = Home.HOST
  kv_dtype: KvDtype = KvDtype.COMPUTED
  folder: str = tempfile.gettempdir()


DEFAULT_WAYS = Ways()


class Reader:
  """A model, and the programs that read texts with it.

  Attributes:
    model: the language model.
    ways: how texts are read.
  """

  def __init__(self, model: LanguageModel, ways: Ways = DEFAULT_WAYS):
    """Compiles nothing yet.

    Raises:
      ValueError: if the segment is not a multiple of the chunk size, or the
        home not one of `HOMES`.
    """
    if ways.home not in HOMES:
      raise ValueError(f"home = {ways.home}: one of {', '.join(HOMES)}")
    self.model, self.ways = model, ways
    self._prefills: dict[int, Prefill] = {}
    self._program(ways.segment)

  def is_short(self, length: int) -> bool:
    """Whether a text of `length` tokens is read with others in one pass."""
    return length <= self.ways.segment

  def read_rows(self, rows: Sequence[Int[np.ndarray, " T"]]) -> SequencePart:
    """Outputs of short texts, all positions; at most `ways.batch` of them.

    Returns:
      `hidden[B T D]`; what lies behind the end of a row is filling.
    """
    longest = max(map(len, rows))
    length = min(bucket(longest, _LEAST), self.ways.segment)
    tokens = np.zeros((self.ways.batch, length), np.int32)
    for row, text in zip(tokens, rows, strict=False):
      row[: len(text)] = text
    return SequencePart(0, length, _hidden(self.model, tokens))

  def read_long(
    self, text: Int[np.ndarray, " T"], num_outputs: int
  ) -> Iterator[SequencePart]:
    """Parts that together cover the last `num_outputs` positions of a text."""
    with self._memory(len(text)) as memory:
      has_suffix = self.model.suffix_length(num_outputs) is not None
      if num_outputs <= _MAX_SUFFIX and has_suffix:
        yield self._read_suffix(text, memory, bucket(num_outputs, _LEAST))
        return
      parts = read_sequence(
        self._program(self.ways.segment),
        lambda start, stop: text[None, start:stop],
        memory,
        length=len(text),
      )
      for part in parts:
        if part.stop > len(text) - num_outputs:
          yield part

  @contextlib.contextmanager
  def decoder(
    self, prompt: Int[np.ndarray, " T"], max_tokens: int
  ) -> Iterator[Decoder]:
    """A decoder behind `prompt`, with room for `max_tokens` more."""
    with self._memory(len(prompt) + max_tokens) as memory:
      yield prefill_decoder(
        self._program(bucket(len(prompt), _LEAST)),
        lambda start, stop: prompt[None, start:stop],
        memory,
        length=len(prompt),
        room=max_tokens,
      )

  def _read_suffix(
    self, text: np.ndarray, memory: ChunkMemory, num_outputs: int
  ) -> SequencePart:
    """The exact last outputs, in one shape for all lengths of text."""
    model, length = self.model, len(text)
    suffix, memory = read_context(
      self._program(self.ways.segment),
      lambda start, stop: text[None, start:stop],
      memory,
      length=length,
      keep=tail_length(model, num_outputs, length),
    )
    needed = model.suffix_length(num_outputs)
    assert needed is not None, "a model without a suffix is read through"
    room = needed + alignment(model.cfg) - 1
    tail = suffix.hidden.shape[1]
    hidden = np.pad(suffix.hidden, ((0, 0), (0, room - tail), (0, 0)))
    hidden, _ = model.upper(
      jnp.asarray(hidden),
      memory,
      model.init_upper_carry(1),
      position=suffix.position,
      count=tail,
    )
    return SequencePart(suffix.position, length, hidden)

  def _program(self, length: int) -> Prefill:
    """The prefill for segments of `length` tokens, at most `ways.segment`."""
    cfg, most = self.model.cfg, self.ways.segment
    chunk = cfg.hsa.chunk_size if cfg.hsa.num_groups else 1
    size = most if length >= most else min(-(-length // chunk) * chunk, most)
    if size not in self._prefills:
      self._prefills[size] = Prefill(self.model, batch=1, segment=size)
    return self._prefills[size]

  def _memory(
    self, length: int
  ) -> contextlib.AbstractContextManager[ChunkMemory]:
    return open_memory(self.plan(length), self.ways.folder)

  def plan(self, length: int) -> Plan:
    """The memory of one text of `length` tokens, in one of a few sizes.

    Raises:
      MemoryHomeError: if it does not fit.
    """
    return plan_context(
      self.model.cfg,
      length=bucket(length, _LEAST),
      batch=1,
      home=self.ways.home,
      free=available(self.ways.folder),
      kv_dtype=self.ways.kv_dtype,
    )


def bucket(size: int, least: int) -> int:
  """The smallest `2^k` or `3 * 2^k` that is neither below `size` nor `least`.

  So few sizes exist, and none is more than half too large.
  """
  size = max(size, least)
  power = 1 << (size - 1).bit_length()
  return 3 * power // 4 if 4 * size <= 3 * power else power


@jit_of_module
def _hidden(
  model: LanguageModel, tokens: Int[Array, "B T"]
) -> Float[Array, "B T D"]:
  return model.hidden(tokens)
