"""The optimizer's moments in the host's memory between steps.

AdamW keeps two numbers per parameter that a step reads and writes once. On the
host they cost the links between host and chip in place of HBM. Counters stay on
the device.
"""

from typing import Any

import jax
import optax

HOST = "pinned_host"


def is_kept_on_host(leaf: Any) -> bool:
  """Whether a leaf of an optimizer's state is worth the way."""
  return len(leaf.shape) > 0


def on_host(shardings: Any, shapes: Any) -> Any:
  """The shardings of an optimizer's state, its arrays in host memory.

  Args:
    shardings: pytree of `NamedSharding`.
    shapes: the same pytree of arrays or their shapes.
  """

  def move(sharding: Any, leaf: Any) -> Any:
    kept = is_kept_on_host(leaf)
    return sharding.with_memory_kind(HOST) if kept else sharding

  return jax.tree.map(move, shardings, shapes)


def fetched(
  tx: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
  """The same optimizer for a state that lies with the host.

  Its update brings the state to the device; the shardings of the step's results
  take the new one back.
  """
  tx = optax.with_extra_args_support(tx)

  def update(grads: Any, state: Any, params: Any = None, **extra: Any) -> Any:
    return tx.update(grads, jax.tree.map(_to_device, state), params, **extra)

  with_extra: Any = update  # optax's own type has no room for it
  return optax.GradientTransformationExtraArgs(tx.init, with_extra)


def _to_device(leaf: Any) -> Any:
  if not is_kept_on_host(leaf):
    return leaf
  return jax.device_put(leaf, jax.memory.Space.Device)
