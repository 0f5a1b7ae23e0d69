"""Letters of the shapes, and what rooms hand to one another.

Every public array argument in the package is annotated with these letters
(checked in the tests by jaxtyping's import hook, free at run time):

  B batch        T query tokens      U key tokens       D embed
  F mlp          V vocabulary        N query heads      G memory (or kv) heads
  H head_dim     C chunks            S chunk_size       K top_k slots
  R landmark_dim per retrieval head  L layers of a stack
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
from jaxtyping import Array, Bool, Float, Int

Tokens = Int[Array, "B T"]
Hidden = Float[Array, "B T D"]
Logits = Float[Array, "B T V"]
Queries = Float[Array, "B T N H"]
Landmarks = Float[Array, "B C G R"]
ChunkTokens = Float[Array, "B C S G H"]


class Selection(NamedTuple):
  """The chunks that each token reads, nearest first.

  Attributes:
    index: chunk ids; invalid slots hold 0 and come last.
    score: float32 retrieval scores (no noise), `-inf` in invalid slots.
    valid: whether the slot holds a visible chunk.
  """

  index: Int[Array, "B T G K"]
  score: Float[Array, "B T G K"]
  valid: Bool[Array, "B T G K"]


class ChunkBlock(NamedTuple):
  """What the chunk encoder says of `C` consecutive complete chunks."""

  landmarks: Float[Array, "B C G R"]
  keys: Float[Array, "B C S G H"]
  values: Float[Array, "B C S G H"]


@runtime_checkable
class Searchable(Protocol):
  """What the upper decoder needs of a chunk memory, wherever it lives."""

  def search(
    self,
    query: Float[Array, "B T G R"],
    *,
    num_visible: Int[Array, " T"],
    top_k: int,
  ) -> Selection:
    """The `top_k` best visible chunks of each token, nearest first."""
    ...

  def read(
    self,
    query: Queries,
    selection: Selection,
    weights: Float[Array, "B T G K"] | None,
    *,
    sink: int,
  ) -> Queries:
    """Weighted sum over the selected chunks of attention inside each."""
    ...


class WindowCache(NamedTuple):
  """The last `W - 1` keys (not rotated) and values of one window layer.

  `length` counts the tokens ever seen, saturating at `W - 1`, so that the
  empty slots at the left of a young cache are never attended to.
  """

  keys: Float[Array, "B P G H"]
  values: Float[Array, "B P G H"]
  length: Int[Array, ""]


class RecurrentState(NamedTuple):
  """What a recurrent layer remembers, of constant size.

  Attributes:
    memory: float32, a matrix for each head; N heads.
    tails: the last values before each causal filter, where there are any.
  """

  memory: Float[Array, "B N *state"]
  tails: tuple[jax.Array, ...]


class RowStates(NamedTuple):
  """States of all recurrent layers of a model, as carries; None elsewhere.

  Attributes:
    lower: of the lower decoder.
    groups: of each group of the upper one.
  """

  lower: Any
  groups: tuple[Any, ...]


# What layers remember between two stretches, stacked on a leading layer axis;
# where layers of a stack differ, a tuple with an item for each place of their
# pattern. Whose state it is, its mixer knows.
Carry = Any


class GroupCarry(NamedTuple):
  """What a group of the upper decoder remembers between two stretches.

  Attributes:
    block: cache of the block's own window; None without `hsa.block_window`.
    layers: of the group's other layers.
    selection: the last retrieval, one row per retrieval head, for the rest of
      its block of tokens; None where every token retrieves.
  """

  block: WindowCache | None
  layers: Carry
  selection: Selection | None


class Limits(NamedTuple):
  """Values of the schedules at one training step; None: the full size.

  Traced scalars below a static maximum, so that a schedule never recompiles.
  """

  top_k: Int[Array, ""] | None = None
  window: Int[Array, ""] | None = None


PRNGKey = jax.Array
