"""The first state of a run: fresh, or with the parameters of another one."""

import jax
import optax
from flax import nnx
from jax.sharding import Mesh

from hsa_jax.config import Config, ModelConfig
from hsa_jax.models import LanguageModel
from hsa_jax.parallel import named_leaves
from hsa_jax.training.checkpoint import (
  CheckpointError,
  find_checkpoint,
  load_model,
  read_metadata,
)
from hsa_jax.training.inputs import Inputs
from hsa_jax.training.state import TrainState, init_state


def first_state(
  cfg: Config,
  inputs: Inputs,
  tx: optax.GradientTransformation,
  *,
  abstract: TrainState,
  mesh: Mesh,
) -> TrainState:
  """The state before step 1.

  With `train.init_from` the parameters are those of a checkpoint; optimizer,
  schedules and data begin anew.

  Args:
    cfg: of the run.
    inputs: of the run.
    tx: the optimizer.
    abstract: shapes and shardings of the state.
    mesh: the device mesh.

  Raises:
    CheckpointError: there is none, it is damaged, or it is of another model or
      vocabulary; says which.
  """
  state = init_state(inputs.build, tx, seed=cfg.train.seed, abstract=abstract)
  if not cfg.train.init_from:
    return state
  folder = find_checkpoint(cfg.train.init_from)
  other, meta = read_metadata(folder)
  if meta.tokenizer_fingerprint != inputs.info.tokenizer_fingerprint:
    raise CheckpointError(
      f"train.init_from = {cfg.train.init_from}: was trained with tokenizer"
      f" {meta.tokenizer}, this run has {inputs.info.tokenizer}\n"
      "  fix: set data.tokenizer and data.store to those of the checkpoint"
    )
  if other.model != cfg.model:
    _check_shapes(cfg.train.init_from, unlike(other.model, cfg.model))
  model, _, _ = load_model(folder, mesh=mesh, build=inputs.build)
  return state._replace(model=model)


def unlike(theirs: ModelConfig, ours: ModelConfig) -> list[str]:
  """A line per parameter that two models do not share; options may differ.

  No array is made, and no device is touched.
  """
  there, here = _shapes(theirs), _shapes(ours)
  return [
    f"{n}: {there.get(n, 'none')} there, {here.get(n, 'none')} here"
    for n in {**here, **there}
    if here.get(n) != there.get(n)
  ]


def _check_shapes(source: str, different: list[str]) -> None:
  """Raises CheckpointError unless all parameters agree."""
  if different:
    lines = [f"  {line}" for line in different[:5]]
    if len(different) > len(lines):
      lines.append(f"  and {len(different) - len(lines)} more")
    raise CheckpointError(
      f"train.init_from = {source}: parameters of another model\n"
      + "\n".join(lines)
      + "\n  fix: give this run the model of the checkpoint's configuration"
    )


def _shapes(cfg: ModelConfig) -> dict[str, tuple[int, ...]]:
  model = jax.eval_shape(lambda: LanguageModel(cfg, rngs=nnx.Rngs(0)))
  return {name: leaf.shape for name, leaf in named_leaves(model).items()}
