"""Rows that go on where the row of the step before ended.

A row reads a stretch of the text for so many steps, then it begins elsewhere.
Where it stands is a function of the step, so a run resumes from one integer.
"""

from typing import Any, NamedTuple

import numpy as np

from hsa_jax.data.rng import make_rng
from hsa_jax.data.sample import cut_ring

STREAM = "train/stream"


class Place(NamedTuple):
  """Where a row stands; numbers, or arrays of them.

  Attributes:
    stream: how many streams it read before this one.
    index: steps since this one began; 0 at its first row.
  """

  stream: Any
  index: Any


def place_of(step: Any, row: Any, *, rows: int, steps: Any) -> Place:
  """Where a row stands at a step of its stage.

  Rows take turns in beginning anew, so that not all of them do at once. At step
  0 a row may stand in the middle of a stream; what was before, nobody read.

  Args:
    step: of the stage, from 0; an integer or array, of NumPy or JAX.
    row: of the batch.
    rows: of the batch, in all.
    steps: of a stream, at least 1.
  """
  moved = step + row * steps // rows
  return Place(moved // steps, moved % steps)


def read_stream(
  text: Any,
  place: Place,
  *,
  seed: int,
  stage: int,
  row: int,
  steps: int,
  length: int,
) -> np.ndarray:
  """The `length + 1` tokens of a row; the last is the next row's first.

  Args:
    text: tokens of a split; a ring, where it is shorter than a stream.
    place: of `place_of`.
    seed: of the run.
    stage: number of the stage.
    row: of the batch.
    steps: of a stream.
    length: T, tokens of a row.
  """
  rng = make_rng(seed, STREAM, stage, row, place.stream)
  room = max(len(text) - steps * length, 1)
  start = int(rng.random() * room) + place.index * length
  return cut_ring(text, start, length + 1)
