"""Muon whose orthogonalisation is shared by the devices.

`optax.contrib.muon` orthogonalises each matrix where it lives: copies of it on
every device of the `data` axis then all do the same work, and a matrix split
over `fsdp` is put together in every iteration. Here all matrices of one shape
become one stack, the stack is split over both axes, and each device does whole
matrices of its own. The update is the same.
"""

import collections
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float

AXES = ("data", "fsdp")  # of the mesh: they share the stacks

_MATRICES = optax.contrib.MuonDimensionNumbers(
  reduction_axis=-2, output_axis=-1
)


class MomentumState(NamedTuple):
  """Running mean of the gradients.

  Attributes:
    count: updates so far.
    mu: like the parameters.
  """

  count: jax.Array
  mu: Any


def scale_by_muon(*, beta: float = 0.95) -> optax.GradientTransformation:
  """Momentum, orthogonalised matrix by matrix, scaled by sqrt(max(1, out/in)).

  For parameters `[... I O]`; leading axes are stacks of matrices.

  Args:
    beta: decay of the momentum, which is Nesterov's, corrected for its start.

  Source: https://kellerjordan.github.io/posts/muon/; equal to
    `optax.contrib.muon` with its defaults, up to the order of sums.
  """
  return optax.chain(
    _momentum(beta),
    optax.stateless(lambda updates, params: orthogonalize(updates)),
  )


def orthogonalize(tree: Any) -> Any:
  """Every matrix with its singular values levelled (five iterations).

  Args:
    tree: arrays `[... I O]`.
  """
  leaves, structure = jax.tree.flatten(tree)
  shapes = [leaf.shape[-2:] for leaf in leaves]
  groups: dict[tuple[int, ...], list[int]] = collections.defaultdict(list)
  for i, shape in enumerate(shapes):
    groups[shape].append(i)
  done: dict[int, jax.Array] = {}
  for (fan_in, fan_out), members in groups.items():
    parts = [leaves[i].reshape(-1, fan_in, fan_out) for i in members]
    stack = _newton_schulz(jnp.concatenate(parts))
    stack = stack * max(1.0, fan_out / fan_in) ** 0.5
    borders = _borders([len(part) for part in parts])
    for i, part in zip(members, jnp.split(stack, borders), strict=True):
      done[i] = part.reshape(leaves[i].shape)
  return jax.tree.unflatten(structure, [done[i] for i in range(len(leaves))])


def _newton_schulz(
  stack: Float[Array, "M I O"],
) -> Float[Array, "M I O"]:
  """The library's iteration, without its momentum, on shares of the stack."""
  bare = optax.contrib.scale_by_muon(
    beta=0.0, nesterov=False, weight_dimension_numbers=_MATRICES
  )
  stack = _split(stack, AXES)
  out, _ = bare.update(stack, bare.init(stack))
  return _split(jnp.asarray(out), ())  # to where the parameters are


def _split(stack: jax.Array, axes: tuple[str, ...]) -> jax.Array:
  """Over those axes that the mesh in force has, if there is one."""
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    return stack
  used = tuple(axis for axis in axes if mesh.shape.get(axis, 1) > 1)
  return jax.lax.with_sharding_constraint(stack, P(used or None))


def _borders(sizes: list[int]) -> list[int]:
  return [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)]


def _momentum(beta: float) -> optax.GradientTransformation:
  """Nesterov's momentum as a mean, each part corrected for its short past."""

  def init(params: Any) -> MomentumState:
    return MomentumState(
      jnp.zeros((), jnp.int32), optax.tree.zeros_like(params)
    )

  def update(updates: Any, state: Any, params: Any = None) -> Any:
    del params
    mu = optax.tree.update_moment(updates, state.mu, beta, 1)
    count = state.count + 1
    ahead = optax.tree.bias_correction(mu, beta, count + 1)
    now = optax.tree.bias_correction(updates, beta, count)
    out = jax.tree.map(lambda m, g: beta * m + (1 - beta) * g, ahead, now)
    return out, MomentumState(count, mu)

  return optax.GradientTransformation(init, update)
