"""AdamW or Muon with clipping, and the rule of which parameters decay."""

import dataclasses
import re
from collections.abc import Hashable
from typing import Any

import jax
import optax

from hsa_jax.config import OptimizerConfig, OptimizerName
from hsa_jax.parallel import leaf_name
from hsa_jax.training import schedule
from hsa_jax.training.muon import scale_by_muon

# Decay pulls a scale, an offset or an embedding towards zero for no benefit.
NO_DECAY = re.compile(r"(norm|bias|scale|slope|gain|taps|embed|cls|sink)")


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
  """Clip by global norm, AdamW or Muon, warm-up and cosine.

  Muon orthogonalises the momentum of every matrix that `decay_mask` names,
  each layer of a stack by itself, at a learning rate of its own; norms,
  embeddings and other vectors are left to Adam (with Nesterov's momentum).

  Args:
    cfg: rates and constants.
    num_steps: steps of the whole run, all stages together.
  """
  clip = optax.clip_by_global_norm(cfg.clip_norm)
  rate = schedule.learning_rate(cfg, num_steps)
  if cfg.name is OptimizerName.ADAMW:
    return optax.chain(
      clip,
      optax.scale_by_adam(b1=cfg.b1, b2=cfg.b2, eps=cfg.eps),
      optax.add_decayed_weights(cfg.weight_decay, mask=decay_mask),
      optax.scale_by_learning_rate(rate),
    )
  own = dataclasses.replace(cfg, learning_rate=cfg.muon_learning_rate)
  transforms: dict[Hashable, Any] = {
    "muon": optax.chain(
      scale_by_muon(),
      optax.add_decayed_weights(cfg.weight_decay),
      optax.scale_by_learning_rate(schedule.learning_rate(own, num_steps)),
    ),
    "adam": optax.nadam(rate, b1=cfg.b1, b2=cfg.b2, eps=cfg.eps),
  }
  return optax.chain(clip, optax.partition(transforms, _muon_or_adam))


def _muon_or_adam(params: Any) -> Any:
  """Which of the two takes each parameter."""
  return jax.tree.map(
    lambda matrix: "muon" if matrix else "adam", decay_mask(params)
  )
