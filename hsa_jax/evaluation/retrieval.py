"""Which chunks the tokens that ask for an answer were given.

The token before each answer token is the one that reads for it; which token or
inserted landmark retrieved what it reads, the configuration says. A
`Follower` is told of every stretch that the upper decoder has read, and picks
from the memory's record what belongs to these tokens; a `Trace` is the outcome
for one sample and one upper group. Figures are made of traces in `diagnostics`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from hsa_jax.config import ModelConfig
from hsa_jax.evaluation.session import Session
from hsa_jax.memory import Read, RecordingMemory, Search
from hsa_jax.models.encoder import retrieval_heads
from hsa_jax.models.marks import (
  asks_ahead,
  mark_every,
  stream_length,
  stream_stride,
)


class Trace(NamedTuple):
  """The tokens that ask for the answer of one sample, in one upper group.

  Attributes:
    position: index in the sample of each asking token.
    index, valid: chunks selected for it.
    num_visible: chunks it could choose from.
    query: its retrieval query; None unless recorded.
    weights: of the selected chunks, per memory head; None unless recorded, or
      where the model has none.
  """

  position: Int[np.ndarray, " n"]
  index: Int[np.ndarray, "n G K"]
  valid: Bool[np.ndarray, "n G K"]
  num_visible: Int[np.ndarray, " n"]
  query: Float[np.ndarray, "n G R"] | None
  weights: Float[np.ndarray, "n M K"] | None


class Follower:
  """Collects the traces of a batch while its tokens are read."""

  def __init__(
    self,
    recorder: RecordingMemory,
    asking: Sequence[Int[np.ndarray, " n"]],
    *,
    cfg: ModelConfig,
  ):
    """Follows the tokens at `asking`.

    Args:
      recorder: the memory that the upper decoder uses; its record is consumed.
      asking: of each sample, the indices of the tokens, ascending.
      cfg: of the model.
    """
    self._recorder, self._asking, self._cfg = recorder, asking, cfg
    self._groups = groups = cfg.hsa.num_groups
    self._last: list[Search] = []  # of each group, and which row of them
    self._last_row = -1
    self._parts: list[list[list[Trace]]] = [
      [[] for _ in range(groups)] for _ in asking
    ]

  def take(self, start: int, stop: int, *, reuse: int = 0) -> None:
    """Picks what belongs to the tokens `start .. stop - 1`, just read.

    Args:
      start: absolute index of the first token of the stretch.
      stop: one beyond its last.
      reuse: tokens at its start before the first retrieval in it.
    """
    cfg = self._cfg
    searches, reads = self._recorder.searches, self._recorder.reads
    rows = stream_length(cfg, np.arange(start, stop + 1))
    rows -= rows[0]  # of the tokens, in the stream of this stretch
    ask = reuse
    if mark_every(cfg):  # a landmark asks for itself, or none leads
      ask = reuse + 1 if asks_ahead(cfg) else 0
    for sample, asking in enumerate(self._asking):
      here = asking[(start <= asking) & (asking < stop)]
      for group in range(self._groups if len(here) else 0):
        leader = group // cfg.hsa.groups_per_retrieval
        before = self._last[leader] if self._last else None
        new = searches[leader] if searches else None
        parts = [
          self._pick(sample, int(row) - ask, before, new)
          for row in rows[here - start]
        ]
        weights = _weights(reads[group], sample, rows[here - start])
        self._parts[sample][group].append(_stack(here, parts, weights))
    if rows[-1] > ask:  # A padded stretch has rows behind its last token.
      self._last = list(searches)
      self._last_row = int(rows[-1] - 1 - ask) // stream_stride(cfg)
    searches.clear()
    reads.clear()

  def _pick(
    self, sample: int, since: int, before: Search | None, new: Search | None
  ) -> "_Found":
    """What a row was given that stands `since` rows behind the first to ask."""
    since -= asks_ahead(self._cfg)
    if since >= 0:
      assert new is not None, "a row behind one that retrieves"
      return _found(new, sample, since // stream_stride(self._cfg))
    if before is not None:
      return _found(before, sample, self._last_row)
    assert asks_ahead(self._cfg), "the first token retrieves"
    return _nothing(self._cfg, self._recorder.keeps_queries)

  def traces(self) -> list[list[Trace]]:
    """Of each sample, a trace per upper group; no groups without memory."""
    return [[_join(parts) for parts in groups] for groups in self._parts]


def follow(
  session: Session,
  recorder: RecordingMemory,
  asking: Sequence[Int[np.ndarray, " n"]],
) -> Follower:
  """A follower of the session's model."""
  return Follower(recorder, asking, cfg=session.model.cfg)


class _Found(NamedTuple):
  index: Int[np.ndarray, "G K"]
  valid: Bool[np.ndarray, "G K"]
  num_visible: int
  query: Float[np.ndarray, "G R"] | None


def _found(search: Search, sample: int, row: int) -> _Found:
  return _Found(
    np.asarray(search.selection.index)[sample, row],
    np.asarray(search.selection.valid)[sample, row],
    int(search.num_visible[row]),
    None if search.query is None else search.query[sample, row],
  )


def _nothing(cfg: ModelConfig, with_query: bool) -> _Found:
  """Of tokens before the first retrieval."""
  count = retrieval_heads(cfg)
  slots, width = (count, cfg.hsa.top_k), cfg.hsa.landmark_dim // count
  query = np.zeros((count, width), np.float32) if with_query else None
  return _Found(np.zeros(slots, np.int32), np.zeros(slots, bool), 0, query)


def _weights(
  read: Read, sample: int, rows: Int[np.ndarray, " n"]
) -> Float[np.ndarray, "n M K"] | None:
  return None if read.weights is None else read.weights[sample, rows]


def _stack(
  position: Int[np.ndarray, " n"],
  parts: Sequence[_Found],
  weights: Float[np.ndarray, "n M K"] | None,
) -> Trace:
  queries = [part.query for part in parts if part.query is not None]
  return Trace(
    position,
    np.stack([part.index for part in parts]),
    np.stack([part.valid for part in parts]),
    np.array([part.num_visible for part in parts]),
    np.stack(queries) if queries else None,
    weights,
  )


def _join(parts: Sequence[Trace]) -> Trace:
  """Consecutive traces as one."""
  columns = zip(*parts, strict=True)
  return Trace(
    *(
      None if column[0] is None else np.concatenate(column)  # type: ignore[arg-type]
      for column in columns
    )
  )


def cut(trace: Trace, count: int) -> Trace:
  """The first `count` tokens of a trace."""
  return Trace(*(None if x is None else x[:count] for x in trace))  # type: ignore[arg-type]
