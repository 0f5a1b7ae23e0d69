"""Independent segments: prefill in parallel, over the devices of a mesh axis.

A state of a lower decoder of windows depends on the `(W - 1) * layers` tokens
before it and on nothing else. A segment that reads that many tokens more in
front, its halo, therefore needs no caches from the segment before, and any
number of them may be read side by side, as rows of one batch:

    sequence   |-- head --|---- segment 0 ----|---- segment 1 ----| ...
    window 0   [   halo       segment         ]
    window 1                  [   halo        :    segment        ]

The answer is that of carried caches; the halo's share of the work is extra.
"""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Int

from hsa_jax.config import lower_layers
from hsa_jax.inference.stream import (
  Prefill,
  PrefillOut,
  SegmentReader,
  SegmentSource,
  Stretch,
  pad_tokens,
)
from hsa_jax.models import LanguageModel
from hsa_jax.models.compiled import jit_of_module
from hsa_jax.models.mixers import reach_of
from hsa_jax.parallel import prefill_compiler_options
from hsa_jax.types import Carry, ChunkBlock


def make_reader(
  model: LanguageModel,
  *,
  batch: int,
  segment: int,
  mesh: Mesh | None = None,
  axis: str = "data",
) -> SegmentReader:
  """Reads `segment` tokens a call: split over the devices of a mesh, if any.

  Args:
    model: the language model.
    batch: sequences per call.
    segment: tokens per call; each device takes whole chunks of it.
    mesh: devices to spread it over; None: segment after segment.
    axis: the axis of the mesh.
  """
  if mesh is None:
    return Prefill(model, batch=batch, segment=segment)
  windows, hsa = mesh.shape[axis], model.cfg.hsa
  chunk = hsa.chunk_size if hsa.num_groups else 1
  return HaloPrefill(
    model,
    batch=batch,
    segment=max(segment // (windows * chunk), 1) * chunk,
    windows=windows,
    mesh=mesh,
    axis=axis,
  )


def halo_length(model: LanguageModel) -> int:
  """Tokens before a segment that its states depend on, in whole chunks.

  Raises:
    ValueError: if these are all tokens.
  """
  reach = reach_of(lower_layers(model.cfg))
  if reach is None:
    raise ValueError(
      "a layer below the memory sees the whole context: segments must be read"
      " one after the other; use Prefill (--prefill=sequential)"
    )
  chunk = model.cfg.hsa.chunk_size if model.cfg.hsa.num_groups else 1
  return -(-reach // chunk) * chunk


class WindowsCarry(NamedTuple):
  """What several windows leave behind.

  Attributes:
    caches: of the lower layers after each window, `[M, ...]`.
    last: the last window that held a token.
  """

  caches: Carry
  last: int


class HaloPrefill:
  """Reads several segments at once; takes the place of `Prefill`.

  With a mesh, windows are split over one of its axes and the model is copied
  to every device. What comes back then lives on the mesh, so the memory and
  the upper decoder must too: use the `model` of this object from there on.

  Attributes:
    model: the language model, on the mesh if there is one.
    batch: sequences read at the same time.
    segment: tokens per window, without its halo.
    windows: segments per call.
    halo: tokens that each window reads in front of its segment.
    num_compilations: programs compiled so far: the head's, the windows'.
  """

  def __init__(
    self,
    model: LanguageModel,
    *,
    batch: int,
    segment: int,
    windows: int,
    mesh: Mesh | None = None,
    axis: str = "data",
  ):
    """Makes the programs; they are compiled by the first calls.

    Args:
      model: the language model.
      batch: sequences per call.
      segment: tokens per window, a multiple of the chunk size.
      windows: segments per call, a multiple of the devices along `axis`.
      mesh: devices to spread the windows over; None: the model's own.
      axis: the axis of the mesh that windows are split over.

    Raises:
      ValueError: for sizes that do not divide as stated.
    """
    self.has_memory = model.cfg.hsa.num_groups > 0
    self.chunk_size = model.cfg.hsa.chunk_size if self.has_memory else 1
    devices = mesh.shape[axis] if mesh is not None else 1
    if segment < 1 or segment % self.chunk_size:
      raise ValueError(
        f"segment = {segment}: must be a multiple of {self.chunk_size}"
      )
    if windows < 1 or windows % devices:
      raise ValueError(
        f"windows = {windows}: must be a multiple of {devices}, the devices"
        f" along the mesh axis {axis!r}"
      )
    self.model, self.batch, self.segment = model, batch, segment
    self.windows, self.halo = windows, halo_length(model)
    compile_it = functools.partial(
      jit_of_module, compiler_options=prefill_compiler_options()
    )
    self._head = compile_it(self._run_head)
    self._placed, self._body = None, compile_it(self._run_windows)
    self._pick = jax.jit(_pick)
    self.num_compilations = 0
    if mesh is not None:
      whole = NamedSharding(mesh, P())
      self._placed = NamedSharding(mesh, P(axis))
      tokens = NamedSharding(mesh, P(None, axis))
      out: Any = (self._placed, tokens, tokens)
      self.model = jax.device_put(model, whole)
      self._body = compile_it(self._run_windows, out_shardings=PrefillOut(*out))
      self._pick = jax.jit(_pick, out_shardings=whole)

  def stretches(self, begin: int, length: int) -> Iterator[Stretch]:
    """The head, which has no past, then `windows` segments at a time."""
    body = begin + self.halo
    if self.halo:
      yield Stretch(begin, begin, min(body, length))
    step = self.windows * self.segment
    for start in range(body, length, step):
      yield Stretch(start - self.halo, start, min(start + step, length))

  def load(self, source: SegmentSource, stretch: Stretch) -> Array | np.ndarray:
    """Tokens [batch, halo] of the head, or [windows, batch, halo + segment]."""
    tokens = source(stretch.first, stretch.stop)
    if stretch.first == stretch.start and self.halo:
      return pad_tokens(tokens, self.batch, self.halo)
    width = self.halo + self.segment
    room = self.halo + self.windows * self.segment
    tokens = pad_tokens(tokens, self.batch, room)
    views = np.lib.stride_tricks.sliding_window_view(tokens, width, axis=1)
    rows = np.moveaxis(views[:, :: self.segment], 1, 0)
    if self._placed is None:
      return rows
    return jax.device_put(np.ascontiguousarray(rows), self._placed)

  def __call__(self, carry: Any, tokens: Any, stretch: Stretch) -> PrefillOut:
    """Reads a stretch. The caches that come in are not needed."""
    del carry
    if tokens.ndim == 2:
      count = np.int32(stretch.stop - stretch.start)
      return self._head(self.model, tokens, np.int32(stretch.start), count)
    first = stretch.first + self.segment * np.arange(self.windows)
    width = self.halo + self.segment
    counts = np.clip(stretch.stop - first, 0, width)
    out = self._body(
      self.model, tokens, first.astype(np.int32), counts.astype(np.int32)
    )
    last = (stretch.stop - stretch.start - 1) // self.segment
    return out._replace(carry=WindowsCarry(out.carry, last))

  def caches(self, carry: Any) -> Carry:
    """Of the last window that held a token."""
    if isinstance(carry, WindowsCarry):
      return self._pick(carry.caches, np.int32(carry.last))
    return carry

  def warm_up(self, length: int = 0) -> None:
    """Compiles the programs, which serve any length."""
    del length

    def source(start: int, stop: int) -> np.ndarray:
      return np.zeros((self.batch, stop - start), np.int32)

    for stretch in self.stretches(0, self.halo + 1):
      out = self(None, self.load(source, stretch), stretch)
      jax.block_until_ready(out.hidden)

  def _run_head(
    self, model: LanguageModel, tokens: Array, position: Array, count: Array
  ) -> PrefillOut:
    self.num_compilations += 1  # Python runs once per trace
    carry = model.init_carry(self.batch)
    hidden, carry = model.lower(tokens, carry, position=position, count=count)
    return PrefillOut(carry, hidden, self._encode(model, hidden, position))

  def _encode(
    self, model: LanguageModel, hidden: Array, position: Array
  ) -> ChunkBlock | None:
    return model.encode(hidden, position=position) if self.has_memory else None

  def _run_windows(
    self,
    model: LanguageModel,
    tokens: Int[Array, "M B T"],
    positions: Int[Array, " M"],
    counts: Int[Array, " M"],
  ) -> PrefillOut:
    """`M` windows, none of which waits for another."""

    def read(tokens: Array, position: Array, count: Array) -> PrefillOut:
      out = self._run_head(model, tokens, position, count)
      hidden = out.hidden[:, self.halo :]
      block = self._encode(model, hidden, position + self.halo)
      return PrefillOut(out.carry, hidden, block)

    out = jax.vmap(read)(tokens, positions, counts)
    hidden, block = jax.tree.map(_in_a_row, (out.hidden, out.block))
    return PrefillOut(out.carry, hidden, block)


def _pick(caches: Carry, index: Int[Array, ""]) -> Carry:
  return jax.tree.map(lambda x: x[index], caches)


def _in_a_row(x: Array) -> Array:
  """[M, B, n, ...] -> [B, M * n, ...]: the windows one after the other."""
  x = jnp.moveaxis(x, 0, 1)
  return x.reshape(x.shape[0], -1, *x.shape[3:])
