"""AdamW with clipping, and the rule of which parameters decay."""

import re
from typing import Any

import jax
import optax

from hsa_jax.config import OptimizerConfig
from hsa_jax.parallel import leaf_name
from hsa_jax.training import schedule

# Decay pulls a scale, an offset or an embedding towards zero for no benefit.
NO_DECAY = re.compile(r"(norm|bias|scale|slope|gain|embed|cls|sink)")


def decay_mask(params: Any) -> Any:
  """True for the matrices that weight decay applies to.

  Judged by name, because in a stack of layers a norm scale has two
  dimensions too.

  Args:
    params: a model or any pytree of arrays.

  Returns:
    The same pytree of Python booleans.
  """

  def decays(path: tuple[Any, ...], leaf: Any) -> bool:
    return leaf.ndim >= 2 and not NO_DECAY.search(leaf_name(path))

  return jax.tree_util.tree_map_with_path(decays, params)


def make_optimizer(
  cfg: OptimizerConfig, *, num_steps: int
) -> optax.GradientTransformation:
  """Clip by global norm, Adam, decoupled decay, warm-up and cosine.

  Args:
    cfg: rates and constants.
    num_steps: steps of the whole run, all stages together.
  """
  return optax.chain(
    optax.clip_by_global_norm(cfg.clip_norm),
    optax.scale_by_adam(b1=cfg.b1, b2=cfg.b2, eps=cfg.eps),
    optax.add_decayed_weights(cfg.weight_decay, mask=decay_mask),
    optax.scale_by_learning_rate(schedule.learning_rate(cfg, num_steps)),
  )
