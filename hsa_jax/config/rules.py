"""The rules between fields. All problems are reported together."""

from collections.abc import Iterator
from typing import Any

from hsa_jax.config.convert import ConfigError
from hsa_jax.config.fields import (
  Config,
  HsaConfig,
  Landmark,
  ModelConfig,
  Position,
  Residual,
  Schedule,
)
from hsa_jax.config.initial_rules import initial_problems
from hsa_jax.config.layer_rules import layer_problems
from hsa_jax.config.stage_rules import stage_problems
from hsa_jax.config.train_rules import training_problems

IMPLEMENTATIONS = {
  "model.window_implementation": ("auto", "reference", "banded", "splash"),
  "model.hsa.implementation": ("auto", "reference", "dense", "gather"),
  "model.compute_dtype": ("float32", "bfloat16"),
}


def validate(
  cfg: Config,
  *,
  num_devices: int | None = None,
  min_question_len: dict[str, int] | None = None,
  tokenizer_vocab_size: int | None = None,
  where: str = "the configuration",
) -> None:
  """Raises one `ConfigError` naming every broken rule; touches no device.

  Args:
    cfg: the configuration.
    num_devices: devices the run will have; None skips the mesh rules.
    min_question_len: tokens that needles and questions of a source need, by
      `"stage/source"` index as in `"0/1"`; None skips the rule.
    tokenizer_vocab_size: ids of the tokenizer; None skips the rule.
    where: name of the configuration, for the message.
  """
  problems = [
    *_positive(cfg),
    *_choices(cfg),
    *_model(cfg.model),
    *_hsa(cfg.model, cfg.model.hsa),
    *_training(cfg),
    *training_problems(cfg.train, cfg.num_steps),
    *layer_problems(cfg),
    *initial_problems(cfg),
    *stage_problems(cfg, min_question_len or {}),
    *_mesh(cfg, num_devices),
    *_vocabulary(cfg, tokenizer_vocab_size),
  ]
  if problems:
    raise ConfigError(problems, where)


def fits_devices(cfg: Config, num_devices: int) -> bool:
  """Whether the mesh and the batches of a run divide over so many devices."""
  return not any(_mesh(cfg, num_devices))


def _positive(cfg: Config) -> Iterator[str]:
  m, h, t, o = cfg.model, cfg.model.hsa, cfg.train, cfg.optimizer
  at_least_one = {
    "model.vocab_size": m.vocab_size,
    "model.embed_dim": m.embed_dim,
    "model.num_heads": m.num_heads,
    "model.num_kv_heads": m.num_kv_heads,
    "model.head_dim": m.head_dim,
    "model.mlp_dim": m.mlp_dim,
    "model.window_size": m.window_size,
    "model.hsa.chunk_size": h.chunk_size,
    "model.hsa.top_k": h.top_k,
    "model.hsa.num_memory_heads": h.num_memory_heads,
    "model.hsa.landmark_dim": h.landmark_dim,
    "model.hsa.tokens_per_retrieval": h.tokens_per_retrieval,
    "model.hsa.groups_per_retrieval": h.groups_per_retrieval,
    "model.hsa.encoder_mlp_dim": h.encoder_mlp_dim,
    "train.grad_accum_steps": t.grad_accum_steps,
    "train.log_every": t.log_every,
    "train.checkpoint_every": t.checkpoint_every,
    "train.keep_checkpoints": t.keep_checkpoints,
    "train.eval_batches": t.eval_batches,
  }
  at_least_zero = {
    "model.num_lower_layers": m.num_lower_layers,
    "model.num_upper_layers": m.num_upper_layers,
    "model.hsa.num_groups": h.num_groups,
    "model.hsa.encoder_layers": h.encoder_layers,
    "train.eval_every": t.eval_every,
    "train.seed": t.seed,
    "train.answer_loss_weight": t.answer_loss_weight,
    "optimizer.warmup_steps": o.warmup_steps,
    "optimizer.weight_decay": o.weight_decay,
    "optimizer.final_learning_rate_ratio": o.final_learning_rate_ratio,
  }
  above_zero = {
    "optimizer.learning_rate": o.learning_rate,
    "optimizer.muon_learning_rate": o.muon_learning_rate,
    "optimizer.clip_norm": o.clip_norm,
    "optimizer.eps": o.eps,
    "model.norm_eps": m.norm_eps,
    "model.init_scale": m.init_scale,
    "model.rope_theta": m.rope_theta,
    "model.logit_scale": m.logit_scale,
  }
  yield from _bounds(at_least_one, 1, "must be at least 1")
  yield from _bounds(at_least_zero, 0, "must not be negative")
  for key, value in above_zero.items():
    if not value > 0:
      yield f"{key} = {value}: must be above 0"
  for key, value in {"optimizer.b1": o.b1, "optimizer.b2": o.b2}.items():
    if not 0 <= value < 1:
      yield f"{key} = {value}: must be in [0, 1)"


def _bounds(values: dict[str, Any], low: float, rule: str) -> Iterator[str]:
  for key, value in values.items():
    if not value >= low:
      yield f"{key} = {value}: {rule}"


def _choices(cfg: Config) -> Iterator[str]:
  actual = {
    "model.window_implementation": cfg.model.window_implementation,
    "model.hsa.implementation": cfg.model.hsa.implementation,
    "model.compute_dtype": cfg.model.compute_dtype,
  }
  for key, value in actual.items():
    names = IMPLEMENTATIONS[key]
    if value not in names:
      yield f"{key} = {value!r}: must be one of {', '.join(names)}"


def _divides(key: str, value: int, of: str, total: int) -> Iterator[str]:
  """`value` must divide `total`; offers the nearest value that does."""
  if value < 1 or total < 1 or total % value == 0:
    return
  divisors = [d for d in range(1, total + 1) if total % d == 0]
  nearest = min(divisors, key=lambda d: (abs(d - value), d))
  yield f"{key} = {value}: must divide {of} = {total}; nearest: {nearest}"


def _model(m: ModelConfig) -> Iterator[str]:
  yield from _divides(
    "model.num_kv_heads", m.num_kv_heads, "model.num_heads", m.num_heads
  )
  if m.head_dim % 2:
    fix = f"nearest: {m.head_dim + 1}"
    yield f"model.head_dim = {m.head_dim}: must be even for rotary pairs; {fix}"
  if m.num_lower_layers + m.num_upper_layers < 1:
    yield "model.num_lower_layers = 0: the model needs at least one layer"


def _hsa(m: ModelConfig, h: HsaConfig) -> Iterator[str]:
  if h.num_groups == 0:
    return
  yield from _divides(
    "model.hsa.num_memory_heads",
    h.num_memory_heads,
    "model.num_heads",
    m.num_heads,
  )
  if h.retrieval_heads == "per_memory_head":
    yield from _divides(
      "model.hsa.num_memory_heads",
      h.num_memory_heads,
      "model.hsa.landmark_dim",
      h.landmark_dim,
    )
  yield from _divides(
    "model.hsa.num_groups",
    h.num_groups,
    "model.num_upper_layers",
    m.num_upper_layers,
  )
  windows_alone = h.block_window and m.num_upper_layers == 0
  if h.num_groups > m.num_upper_layers and not windows_alone:
    yield (
      f"model.hsa.num_groups = {h.num_groups}: each group needs an upper layer,"
      f" model.num_upper_layers = {m.num_upper_layers}; or none has one, with"
      " model.hsa.block_window"
    )
  yield from _retrieval(m, h)
  if h.landmark == "cls" and h.encoder_layers == 0:
    yield (
      "model.hsa.landmark = 'cls': needs model.hsa.encoder_layers >= 1; without"
      " an encoder use 'mean'"
    )
  if h.sink not in (0, 1):
    yield f"model.hsa.sink = {h.sink}: must be 0 or 1"
  if h.weighting == "softmax" and h.top_k == 1:
    yield (
      "model.hsa.top_k = 1: with softmax weights the retriever gets no"
      " gradient; use 'stick_breaking' or top_k >= 2"
    )
  if h.residual not in tuple(Residual):
    names = "bypass, standard or plain"
    yield f"model.hsa.residual = {h.residual!r}: must be {names}"


def _retrieval(m: ModelConfig, h: HsaConfig) -> Iterator[str]:
  """Who asks, with what, and for whom."""
  yield from _divides(
    "model.hsa.groups_per_retrieval",
    h.groups_per_retrieval,
    "model.hsa.num_groups",
    h.num_groups,
  )
  if not h.landmark_projection and h.landmark_dim != m.embed_dim:
    yield (
      f"model.hsa.landmark_dim = {h.landmark_dim}: without"
      " model.hsa.landmark_projection it must be model.embed_dim ="
      f" {m.embed_dim}"
    )
  if h.position not in (Position.NONE, Position.ABSOLUTE_ROPE):
    yield (
      f"model.hsa.position = {str(h.position)!r}: a read has 'none' or"
      " 'absolute_rope'"
    )
  elif h.position is not Position.NONE and h.landmark is Landmark.TOKEN:
    yield (
      f"model.hsa.position = {str(h.position)!r}: inserted landmark tokens have"
      " no place in it; use 'none' with model.hsa.landmark = 'token'"
    )
  shared = h.tokens_per_retrieval not in (1, h.chunk_size)
  if h.landmark is Landmark.TOKEN and shared:
    yield (
      f"model.hsa.tokens_per_retrieval = {h.tokens_per_retrieval}: with"
      " model.hsa.landmark = 'token' it must be model.hsa.chunk_size ="
      f" {h.chunk_size}, so that landmark tokens ask, or 1"
    )


def _training(cfg: Config) -> Iterator[str]:
  limits = {
    "train.top_k_schedule": (
      cfg.train.top_k_schedule,
      cfg.model.hsa.top_k,
      "model.hsa.top_k",
    ),
    "train.window_schedule": (
      cfg.train.window_schedule,
      cfg.model.window_size,
      "model.window_size",
    ),
  }
  for key, (schedule, maximum, name) in limits.items():
    yield from _schedule(key, schedule, maximum, name)
  if cfg.optimizer.warmup_steps > cfg.num_steps > 0:
    yield (
      f"optimizer.warmup_steps = {cfg.optimizer.warmup_steps}: longer than the"
      f" run of {cfg.num_steps} steps"
    )


def _schedule(
  key: str, schedule: Schedule, maximum: int, name: str
) -> Iterator[str]:
  steps = [step for step, _ in schedule]
  if steps and (steps[0] != 0 or steps != sorted(set(steps))):
    yield f"{key} = {schedule}: steps must start at 0 and increase"
  for _, value in schedule:
    if not 1 <= value <= maximum:
      yield f"{key} = {schedule}: values must be in 1..{maximum} ({name})"
      return


def _mesh(cfg: Config, num_devices: int | None) -> Iterator[str]:
  mesh = cfg.mesh
  sizes = {
    "data": mesh.data,
    "fsdp": mesh.fsdp,
    "context": mesh.context,
    "tensor": mesh.tensor,
  }
  for name, size in sizes.items():
    if size < 1 and size != -1:
      yield f"mesh.{name} = {size}: must be at least 1, or -1 for what is left"
  free = [name for name, size in sizes.items() if size == -1]
  if len(free) > 1:
    yield f"mesh: only one axis may be -1, got {', '.join(free)}"
  malformed = len(free) > 1 or any(s == 0 or s < -1 for s in sizes.values())
  if num_devices is None or malformed:
    return
  fixed = 1
  for size in sizes.values():
    fixed *= 1 if size == -1 else size
  shape = " x ".join(f"{name}={size}" for name, size in sizes.items())
  if num_devices % fixed or (not free and fixed != num_devices):
    yield f"mesh = {shape}: needs {fixed} devices, this run has {num_devices}"
    return
  rows = sizes["fsdp"] if sizes["fsdp"] != -1 else num_devices // fixed
  rows *= sizes["data"] if sizes["data"] != -1 else num_devices // fixed
  for i, stage in enumerate(cfg.data.stages):
    micro = stage.batch_size // max(cfg.train.grad_accum_steps, 1)
    if micro % max(rows, 1):
      yield (
        f"data.stages[{i}].batch_size = {stage.batch_size}: each of the"
        f" {cfg.train.grad_accum_steps} micro-batches must be divisible by"
        f" data*fsdp = {rows}"
      )


def _vocabulary(cfg: Config, tokenizer_vocab_size: int | None) -> Iterator[str]:
  if tokenizer_vocab_size and cfg.model.vocab_size < tokenizer_vocab_size:
    yield (
      f"model.vocab_size = {cfg.model.vocab_size}: tokenizer"
      f" {cfg.data.tokenizer!r} has {tokenizer_vocab_size} ids; nearest:"
      f" {-(-tokenizer_vocab_size // 8) * 8}"
    )
