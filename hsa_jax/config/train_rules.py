"""Rules of what happens around the steps: saving, guarding, watching."""

from collections.abc import Iterator

from hsa_jax.config.fields import Guard, TrainConfig


def training_problems(cfg: TrainConfig, num_steps: int) -> Iterator[str]:
  """One line for every broken rule: field, value, rule, fix.

  Args:
    cfg: of the run.
    num_steps: optimizer steps of the whole run.
  """
  yield from _not_negative(cfg)
  yield from _guard(cfg)
  yield from _best(cfg)
  yield from _profile(cfg.profile_steps, num_steps)


def _not_negative(cfg: TrainConfig) -> Iterator[str]:
  values = {
    "checkpoint_every_s": cfg.checkpoint_every_s,
    "keep_every": cfg.keep_every,
    "keep_best": cfg.keep_best,
    "max_skips": cfg.max_skips,
    "diagnose_every": cfg.diagnose_every,
  }
  for name, value in values.items():
    if not value >= 0:
      yield f"train.{name} = {value}: must not be negative"


def _guard(cfg: TrainConfig) -> Iterator[str]:
  if cfg.on_nonfinite is Guard.IGNORE:
    yield (
      "train.on_nonfinite = 'ignore': an update that is not finite ruins every"
      " parameter; use 'stop' or 'skip'"
    )
  if not cfg.spike_factor > 1:
    yield (
      f"train.spike_factor = {cfg.spike_factor}: must be above 1, a multiple of"
      " the usual gradient norm"
    )


def _best(cfg: TrainConfig) -> Iterator[str]:
  """Only a checkpoint of a validated step has a loss to be ranked by."""
  if cfg.keep_best <= 0:
    return
  if cfg.eval_every <= 0:
    yield (
      f"train.keep_best = {cfg.keep_best}: needs validation losses; set"
      " train.eval_every"
    )
  elif cfg.checkpoint_every % cfg.eval_every:
    yield (
      f"train.checkpoint_every = {cfg.checkpoint_every}: with train.keep_best ="
      f" {cfg.keep_best} it must be a multiple of train.eval_every ="
      f" {cfg.eval_every}, so that every checkpoint has a validation loss"
    )


def _profile(window: tuple[int, ...], num_steps: int) -> Iterator[str]:
  if not window:
    return
  if len(window) != 2:
    yield f"train.profile_steps = {window}: must be (first, end) or ()"
  elif not 2 <= window[0] < window[1] <= num_steps + 1:
    yield (
      f"train.profile_steps = {window}: needs 2 <= first < end <="
      f" {num_steps + 1}; step 1 compiles, and the run has {num_steps} steps"
    )
