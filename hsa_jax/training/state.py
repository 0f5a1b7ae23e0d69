"""What a run must remember between two steps, and nothing else."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Int

from hsa_jax.parallel import tree_shardings
from hsa_jax.training.offload import on_host

BuildModel = Callable[[nnx.Rngs], Any]


class TrainState(NamedTuple):
  """A pytree; randomness is `fold_in(seed, step)` and needs no state.

  Attributes:
    model: the NNX module, float32 parameters.
    opt_state: optax state.
    step: optimizer steps done.
    kept: what a step leaves to the initial states of the next; see `initial`.
  """

  model: Any
  opt_state: Any
  step: Int[Array, ""]
  kept: Any = None


def _keep_nothing(model: Any) -> None:
  del model


def _init(build: BuildModel, tx: optax.GradientTransformation, seed: int):
  def init() -> TrainState:
    model = build(nnx.Rngs(seed))
    return TrainState(model, tx.init(model), jnp.zeros((), jnp.int32))

  return init


def abstract_state(
  build: BuildModel,
  tx: optax.GradientTransformation,
  *,
  mesh: Mesh,
  host_optimizer: bool = False,
  kept: Callable[[Any], Any] = _keep_nothing,
) -> TrainState:
  """Shapes, dtypes and shardings of the state; nothing is computed.

  Args:
    build: makes the model from its random streams.
    tx: the optimizer.
    mesh: the device mesh.
    host_optimizer: the optimizer's arrays live in host memory.
    kept: of a model before its first step; see `initial.empty_kept`.

  Returns:
    A `TrainState` of `jax.ShapeDtypeStruct` with shardings.
  """
  shapes = jax.eval_shape(_init(build, tx, 0))
  shapes = shapes._replace(kept=jax.eval_shape(kept, shapes.model))
  shardings = tree_shardings(shapes, mesh)
  if host_optimizer:
    moved = on_host(shardings.opt_state, shapes.opt_state)
    shardings = shardings._replace(opt_state=moved)

  def attach(leaf: Any, sharding: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

  return jax.tree.map(attach, shapes, shardings)


def init_state(
  build: BuildModel,
  tx: optax.GradientTransformation,
  *,
  seed: int,
  abstract: TrainState,
) -> TrainState:
  """A fresh state, each array made where it will live.

  Args:
    build: makes the model from its random streams.
    tx: the optimizer.
    seed: of the parameters.
    abstract: of `abstract_state`; its shardings are used.
  """
  init = _init(build, tx, seed)
  shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)

  def init_all() -> TrainState:
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), abstract.kept)
    return init()._replace(kept=zeros)

  return jax.jit(init_all, out_shardings=shardings)()
