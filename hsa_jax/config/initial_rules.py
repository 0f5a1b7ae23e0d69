"""The rules of initial states, and of rows that go on through a text."""

from collections.abc import Iterator

from hsa_jax.config.fields import Config, StageConfig, Task
from hsa_jax.config.recurrent import InitialState, InitialStateConfig
from hsa_jax.config.recurrent_rules import RECURRENT

KEEPING = (InitialState.STATE_PASSING, InitialState.TBTT)  # final states


def initial_problems(cfg: Config) -> Iterator[str]:
  """One line for every broken rule: field, value, rule, fix."""
  for i, stage in enumerate(cfg.data.stages):
    yield from _stream(cfg, f"data.stages[{i}]", stage)
  own = cfg.train.initial_state
  if own == type(own)():
    return
  if not any(layer.mixer in RECURRENT for layer in cfg.model.layers):
    yield (
      "train.initial_state: is for recurrent layers (mamba2, gla), and"
      " model.layers has none; leave it out"
    )
  yield from _numbers(own)
  yield from _segments(cfg, own.segments)
  if own.mode in KEEPING:
    yield from _rows(cfg, own)
  if own.mode is InitialState.TBTT:
    yield from _tbtt(cfg, own)


def _stream(cfg: Config, key: str, stage: StageConfig) -> Iterator[str]:
  steps = stage.stream_steps
  if steps < 1:
    yield f"{key}.stream_steps = {steps}: must be at least 1"
  if steps <= 1:
    return
  plain = len(stage.sources) == 1 and stage.sources[0].task is Task.TEXT
  if not plain or stage.neg_sampling_group > 1 or cfg.data.synthetic_mix:
    yield (
      f"{key}.stream_steps = {steps}: rows that go on through the text have"
      " one source of task = 'text', neg_sampling_group = 1 and"
      " data.synthetic_mix = 0"
    )


def _numbers(own: InitialStateConfig) -> Iterator[str]:
  if not own.noise_std > 0:
    yield f"train.initial_state.noise_std = {own.noise_std}: must be above 0"
  if not 0 <= own.fit_decay < 1:
    yield f"train.initial_state.fit_decay = {own.fit_decay}: must be in [0, 1)"
  if not 0 < own.probability <= 1:
    yield (
      f"train.initial_state.probability = {own.probability}: must be in (0, 1];"
      " for none use mode = 'zero'"
    )
  if own.reset_every < 0:
    yield (
      f"train.initial_state.reset_every = {own.reset_every}: must not be"
      " negative"
    )


def _segments(cfg: Config, segments: int) -> Iterator[str]:
  if segments < 1:
    yield f"train.initial_state.segments = {segments}: must be at least 1"
    return
  for i, stage in enumerate(cfg.data.stages):
    if stage.seq_len % segments:
      near = max(round(stage.seq_len / segments), 1) * segments
      yield (
        f"data.stages[{i}].seq_len = {stage.seq_len}: must be a multiple of"
        f" train.initial_state.segments = {segments}; nearest: {near}"
      )


def _rows(cfg: Config, own: InitialStateConfig) -> Iterator[str]:
  """Final states are kept for as many rows as there are."""
  rows = {stage.batch_size for stage in cfg.data.stages}
  if len(rows) > 1:
    yield (
      f"train.initial_state.mode = {str(own.mode)!r}: hands states from row to"
      " row, so all stages need one batch_size; they have"
      f" {', '.join(map(str, sorted(rows)))}"
    )


def _tbtt(cfg: Config, own: InitialStateConfig) -> Iterator[str]:
  """A row and the row that it continues are one sequence."""
  for name in ("probability", "reset_every", "segments"):
    value, whole = getattr(own, name), getattr(InitialStateConfig(), name)
    if value != whole:
      yield (
        f"train.initial_state.{name} = {value}: mode = 'tbtt' goes on through"
        f" the text; leave it out, or use mode = 'state_passing'"
      )
  for i, stage in enumerate(cfg.data.stages):
    if stage.stream_steps == 1:
      yield (
        f"data.stages[{i}].stream_steps = 1: train.initial_state.mode = 'tbtt'"
        " needs rows that go on through the text; set it to their steps"
      )
