"""Which chunks the tokens that ask for an answer were given.

The token before each answer token is the one that retrieves for it. A
`Follower` is told of every stretch that the upper decoder has read, and picks
from the memory's record what belongs to these tokens; a `Trace` is the outcome
for one sample and one upper group. Figures are made of traces in `diagnostics`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from hsa_jax.evaluation.session import Session
from hsa_jax.memory import Read, RecordingMemory, Search


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
    groups: int,
    stride: int,
  ):
    """Follows the tokens at `asking`.

    Args:
      recorder: the memory that the upper decoder uses; its record is consumed.
      asking: of each sample, the indices of the tokens, ascending.
      groups: upper groups of the model; 0 without memory.
      stride: tokens that share one retrieval.
    """
    self._recorder, self._asking = recorder, asking
    self._groups, self._stride = groups, stride
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
      reuse: tokens at its start that shared the retrieval before it.
    """
    searches, reads = self._recorder.searches, self._recorder.reads
    for sample, asking in enumerate(self._asking):
      here = asking[(start <= asking) & (asking < stop)]
      for group in range(self._groups if len(here) else 0):
        before = self._last[group] if self._last else None
        new = searches[group] if searches else None
        parts = [
          self._pick(sample, int(token), start + reuse, before, new)
          for token in here
        ]
        weights = _weights(reads[group], sample, here - start)
        self._parts[sample][group].append(_stack(here, parts, weights))
    if stop > start + reuse:  # A padded stretch has rows behind its last token.
      self._last = list(searches)
      self._last_row = (stop - 1 - start - reuse) // self._stride
    searches.clear()
    reads.clear()

  def _pick(
    self,
    sample: int,
    token: int,
    first: int,
    before: Search | None,
    new: Search | None,
  ) -> "_Found":
    """What one token was given; `first` is the first to retrieve anew."""
    if token < first:
      assert before is not None, "the first token retrieves"
      return _found(before, sample, self._last_row)
    assert new is not None, "a token beyond the shared ones retrieves"
    return _found(new, sample, (token - first) // self._stride)

  def traces(self) -> list[list[Trace]]:
    """Of each sample, a trace per upper group; no groups without memory."""
    return [[_join(parts) for parts in groups] for groups in self._parts]


def follow(
  session: Session,
  recorder: RecordingMemory,
  asking: Sequence[Int[np.ndarray, " n"]],
) -> Follower:
  """A follower of the session's model."""
  hsa = session.model.cfg.hsa
  stride = hsa.tokens_per_retrieval
  return Follower(recorder, asking, groups=hsa.num_groups, stride=stride)


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
