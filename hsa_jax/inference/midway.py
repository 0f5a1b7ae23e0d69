"""A context half read: what it takes, beside its chunks, to go on."""

from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from flax import serialization
from jaxtyping import Float


class Midway(NamedTuple):
  """Everything that reading the rest of a context depends on, on the host.

  Attributes:
    stop: tokens read so far; a stretch ends here.
    carry: what the lower decoder remembers after them.
    tail: those of the last hidden states to keep that are there already.
  """

  stop: int
  carry: Any
  tail: tuple[Float[np.ndarray, "B t D"], ...]


class Journal(Protocol):
  """Remembers how far a context was read, so that a crash costs little.

  Attributes:
    midway: where to go on; None: at the start. The memory holds its chunks.
  """

  midway: Midway | None

  def due(self) -> bool:
    """Whether it is time to save; asked before every stretch."""
    ...

  def save(self, midway: Midway) -> None:
    """Makes `midway` durable, together with the chunks in the memory."""
    ...


def to_bytes(midway: Midway) -> bytes:
  """`midway` as a sequence of bytes."""
  leaves = [np.asarray(x) for x in jax.tree.leaves(midway.carry)]
  body = {
    "stop": midway.stop,
    "carry": {str(i): x for i, x in enumerate(leaves)},
    "tail": {str(i): x for i, x in enumerate(midway.tail)},
  }
  return serialization.msgpack_serialize(body)


def from_bytes(data: bytes, carry: Any) -> Midway:
  """What `to_bytes` was given.

  Args:
    data: from `to_bytes`, unaltered.
    carry: any such state of the same model, for its structure; may be abstract.
  """
  body: Any = serialization.msgpack_restore(data)

  def in_order(arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
    return [arrays[str(i)] for i in range(len(arrays))]

  carry = jax.tree.unflatten(jax.tree.structure(carry), in_order(body["carry"]))
  return Midway(body["stop"], carry, tuple(in_order(body["tail"])))
