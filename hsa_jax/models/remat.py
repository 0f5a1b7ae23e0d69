"""What the backward pass keeps, computes again, or leaves with the host."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax.ad_checkpoint import checkpoint_name

from hsa_jax.config import Remat
from hsa_jax.types import Selection

T = TypeVar("T")

SELECTION = "selection"  # chunks that a token reads
READ = "read"  # what a token read in them
INPUT = "block_input"  # the stream as a block takes it


def name_input(x: jax.Array) -> jax.Array:
  """Marks the stream at the head of a block, the array that can be offloaded.

  The input and not the output: an output is kept as the input of the block
  after it, whatever a policy says of it.
  """
  return checkpoint_name(x, INPUT)


def name_selection(selection: Selection) -> Selection:
  """Marks the chosen chunks, which every policy keeps."""
  return Selection(*(checkpoint_name(part, SELECTION) for part in selection))


def name_read(read: jax.Array) -> jax.Array:
  """Marks the result of a read, which is small beside what it was made of."""
  return checkpoint_name(read, READ)


def apply_remat(
  call: Callable[..., T], remat: Remat, *, in_scan: bool = False
) -> Callable[..., T]:
  """`call`, one block of the model, under a policy of `config.Remat`.

  Selected chunks are always kept, so that the backward pass cannot pick other
  chunks than the forward.

  Args:
    call: the block.
    remat: the policy.
    in_scan: it is the body of a loop, where the compiler cannot mistake the
      second computation for the first and keep that one.
  """
  if remat is Remat.NONE:
    return call
  return jax.checkpoint(call, policy=_policy(remat), prevent_cse=not in_scan)


def _policy(remat: Remat) -> Any:
  policies = jax.checkpoint_policies
  if remat is Remat.BLOCK:
    return policies.save_only_these_names(SELECTION, READ)
  return policies.save_and_offload_only_these_names(
    names_which_can_be_saved=[SELECTION, READ],
    names_which_can_be_offloaded=[INPUT],
    offload_src="device",
    offload_dst="pinned_host",
  )
