"""The training step as compiled programs, and the state as they take it."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from hsa_jax.config import Config, StageConfig
from hsa_jax.data.pipeline import Batch
from hsa_jax.parallel import batch_sharding, step_compiler_options
from hsa_jax.training.state import TrainState
from hsa_jax.training.step import StepMetrics, make_train_step

Leaves = list[jax.Array]


class StepPrograms:
  """The step, compiled once for each batch shape (stages may differ).

  Between steps the state is the list of its arrays: to take a module apart and
  put it together again costs Python as long as a device takes for a small
  matrix, every step.
  """

  def __init__(
    self,
    cfg: Config,
    tx: optax.GradientTransformation,
    abstract: TrainState,
    *,
    mesh: Mesh,
  ):
    """Compiles nothing yet.

    Args:
      cfg: of the run.
      tx: the optimizer.
      abstract: the state's shapes and shardings, which every step keeps.
      mesh: the device mesh, in force when the programs are compiled.
    """
    shapes, self._structure = jax.tree.flatten(abstract)
    step_fn = make_train_step(cfg, tx, mesh=mesh)

    def run(leaves: Leaves, batch: Batch) -> tuple[Leaves, StepMetrics]:
      state, metrics = step_fn(self.unpack(leaves), batch)
      return jax.tree.leaves(state), metrics

    shardings = [leaf.sharding for leaf in shapes]
    self._step = jax.jit(run, donate_argnums=0, out_shardings=(shardings, None))
    self._programs: dict[tuple[int, ...], Any] = {}

  def pack(self, state: TrainState) -> Leaves:
    """The arrays of a state, which a step takes and uses up."""
    return jax.tree.leaves(state)

  def unpack(self, leaves: Leaves) -> TrainState:
    """The state of these arrays."""
    return jax.tree.unflatten(self._structure, leaves)

  def lower(self, leaves: Leaves, batch: Batch) -> Any:
    """The step for batches of this shape, ready for a compiler."""
    return self._step.lower(leaves, batch)

  def has(self, batch: Batch) -> bool:
    """Whether the program for batches of this shape is there."""
    return batch.tokens.shape in self._programs

  def program(
    self,
    leaves: Leaves,
    batch: Batch,
    say: Callable[[str], None] = lambda text: None,
  ) -> Any:
    """`(leaves, batch) -> (leaves, metrics)` for batches of this shape.

    Args:
      leaves: arrays of the state, or their shapes.
      batch: arrays, or their shapes.
      say: told when a program had to be compiled.
    """
    shape = batch.tokens.shape
    if not self.has(batch):
      start = time.perf_counter()
      lowered = self.lower(leaves, batch)
      self._programs[shape] = lowered.compile(step_compiler_options())
      seconds = time.perf_counter() - start
      say(
        f"compiled the step for {shape[0]} rows of {shape[1]} tokens"
        f" in {seconds:.1f} s"
      )
    return self._programs[shape]


def abstract_batch(stage: StageConfig, mesh: Mesh) -> Batch:
  """Shapes and shardings of a batch as the step takes it."""

  def array(dtype: Any) -> Any:
    shape = (stage.batch_size, stage.seq_len)
    return jax.ShapeDtypeStruct(shape, dtype, sharding=batch_sharding(mesh))

  return Batch(array(np.int32), array(np.int32), *(array(np.float32),) * 2)
