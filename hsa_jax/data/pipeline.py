"""Training batches as a pure function of (seed, step).

Nothing is shuffled, packed or remembered: row `r` of step `s` draws its source,
its text and its needles from its own random stream. So a run resumes from one
integer, and any number of processes makes the same global batch.
"""

import bisect
import itertools
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, SupportsIndex

import grain
import numpy as np

from hsa_jax.config.convert import ConfigError
from hsa_jax.config.fields import (
  Config,
  Haystack,
  SourceConfig,
  StageConfig,
  Task,
)
from hsa_jax.config.stage_rules import source_problem
from hsa_jax.data.errors import StoreError
from hsa_jax.data.rng import MIX, TRAIN, make_rng
from hsa_jax.data.sample import cut_ring, render
from hsa_jax.data.store import TokenStore
from hsa_jax.data.streams import place_of, read_stream
from hsa_jax.data.tokenizer import Tokenizer
from hsa_jax.data.tokens.catalog import MAKERS, SYNTHETIC, make_task
from hsa_jax.data.tokens.layout import TokenTask
from hsa_jax.data.tokens.rings import Haystacks, make_haystacks, ordinary_ids

# From the number of rows of a step to the numbers of those that are wanted.
Share = Callable[[int], Sequence[int] | np.ndarray]


class Batch(NamedTuple):
  """Rows of one optimizer step.

  Attributes:
    tokens: int32[B, T], inputs.
    targets: int32[B, T], the token after each input.
    weights: float32[B, T], 1 where the target counts, 0 for padding.
    answers: float32[B, T], 1 where the target is an answer token (eos is not).
  """

  tokens: np.ndarray
  targets: np.ndarray
  weights: np.ndarray
  answers: np.ndarray


class TrainData:
  """Batches of all stages, one after another."""

  def __init__(self, cfg: Config, store: TokenStore, tokenizer: Tokenizer):
    """Prepares the sources; reads no text yet.

    Args:
      cfg: `data.stages` and `train.seed` are used.
      store: made by `tokenizer`.
      tokenizer: writes needles and questions.

    Raises:
      StoreError: the store was made by another tokenizer.
    """
    if store.fingerprint != tokenizer.fingerprint:
      raise StoreError(
        f"{store.path}: made by tokenizer {store.tokenizer_spec!r}, this run"
        f" uses {tokenizer.spec!r}; set data.tokenizer or data.store"
      )
    self._seed = cfg.train.seed
    self._store = store
    self._pad_id = tokenizer.pad_id
    self._ordinary = ordinary_ids(tokenizer)
    self._noise = make_haystacks(np.empty(0), tokenizer).noise
    self._stages = cfg.data.stages
    self._ends = np.cumsum([s.num_steps for s in self._stages])
    self._shares = [_shares(stage.sources) for stage in self._stages]
    self._tasks = [
      [_make_task(source, tokenizer) for source in stage.sources]
      for stage in self._stages
    ]
    self._mix = cfg.data.synthetic_mix
    self._mixed_in = [make_task(s, tokenizer) for s in SYNTHETIC]

  def __len__(self) -> int:
    """Optimizer steps of all stages."""
    return int(self._ends[-1])

  def stage(self, step: int) -> StageConfig:
    """The stage that a step belongs to; `IndexError` past the last step."""
    return self._stages[self._stage_index(step)]

  def batch(self, step: int, *, share: Share = range) -> Batch:
    """The rows of one step, or a process's share of them.

    Args:
      step: 0-based, counted over all stages; `IndexError` past the last.
      share: which rows; all by default.
    """
    index = self._stage_index(step)
    stage = self._stages[index]
    numbers = share(stage.batch_size)
    rows = np.empty((len(numbers), stage.seq_len + 1), np.int32)
    answers = np.zeros(rows.shape, np.float32)
    for i, row in enumerate(numbers):
      self._fill(index, step, int(row), rows[i], answers[i])
    weights = np.ones((len(rows), stage.seq_len), np.float32)
    return Batch(rows[:, :-1], rows[:, 1:], weights, answers[:, 1:])

  def iterator(
    self,
    start_step: int = 0,
    *,
    share: Share = range,
    num_threads: int = 2,
    prefetch: int = 4,
  ) -> Iterator[Batch]:
    """Batches from `start_step` to the end, made ahead by threads.

    Args:
      start_step: first step; this one number resumes a run, on any number of
        processes.
      share: as in `batch`.
      num_threads: threads that make batches; 0 makes them on demand.
      prefetch: batches kept ready.
    """
    source = _Steps(self, share)
    steps = grain.MapDataset.source(source)[start_step:]
    ahead = prefetch if num_threads else 0
    options = grain.ReadOptions(
      num_threads=num_threads, prefetch_buffer_size=ahead
    )
    return iter(steps.to_iter_dataset(options))

  def validation_batches(
    self, num_batches: int, *, share: Share = range
  ) -> list[Batch]:
    """The same evenly spaced stretches of plain "valid" text every time.

    Rows have the shape of the last stage. A split shorter than a row is padded
    and the padding has weight 0.
    """
    stage = self._stages[-1]
    text = self._store.split("valid")
    total = num_batches * stage.batch_size
    last = max(len(text) - stage.seq_len - 1, 0)
    starts = np.linspace(0, last, total).astype(np.int64)
    starts = starts.reshape(num_batches, stage.batch_size)
    mine = starts[:, np.asarray(share(stage.batch_size))]
    return [_plain(text, row, stage.seq_len, self._pad_id) for row in mine]

  def _stage_index(self, step: int) -> int:
    if not 0 <= step < len(self):
      raise IndexError(f"step {step} is not in 0..{len(self) - 1}")
    return int(np.searchsorted(self._ends, step, side="right"))

  def _fill(
    self,
    stage_index: int,
    step: int,
    row: int,
    tokens: np.ndarray,
    answers: np.ndarray,
  ) -> None:
    """Writes one row of T + 1 tokens and its answer mask, in place."""
    mixed = self._mixed(step, row, tokens, answers)
    if mixed:
      return
    stage = self._stages[stage_index]
    if stage.stream_steps > 1:
      tokens[:] = self._streamed(stage_index, step, row)
      return
    size = stage.seq_len // stage.neg_sampling_group
    for i in range(stage.neg_sampling_group):
      last = i == stage.neg_sampling_group - 1
      part = slice(i * size, None if last else (i + 1) * size)
      # The first segment's stream is that of a row that is one sample.
      rng = make_rng(self._seed, TRAIN, step, row, i)
      self._segment(stage_index, rng, tokens[part], answers[part])

  def _streamed(self, stage_index: int, step: int, row: int) -> np.ndarray:
    """A row of a stage whose rows go on through the text."""
    stage = self._stages[stage_index]
    steps = stage.stream_steps
    inside = step - int(self._ends[stage_index]) + stage.num_steps
    return read_stream(
      self._store.split("train"),
      place_of(inside, row, rows=stage.batch_size, steps=steps),
      seed=self._seed,
      stage=stage_index,
      row=row,
      steps=steps,
      length=stage.seq_len,
    )

  def _segment(
    self,
    stage_index: int,
    rng: np.random.Generator,
    tokens: np.ndarray,
    answers: np.ndarray,
  ) -> None:
    """Writes one sample of the stage's mixture, in place."""
    sources = self._stages[stage_index].sources
    choice = _choose(self._shares[stage_index], rng.random())
    task, source = self._tasks[stage_index][choice], sources[choice]
    if task is not None:
      self._write(task, rng, tokens, answers)
    elif source.task is Task.COPY:
      half = -(-len(tokens) // 2)
      tokens[:] = np.resize(self._stretch(source, rng, half), len(tokens))
      answers[half:] = 1
    else:
      text = self._store.split("train")
      tokens[:] = cut_ring(_cut(text, rng, len(tokens)), 0, len(tokens))

  def _mixed(
    self, step: int, row: int, tokens: np.ndarray, answers: np.ndarray
  ) -> bool:
    """Whether the row is one of `synthetic_mix`, and if so writes it.

    The choice has a stream of its own: rows that are not replaced are those of
    a run without the mix.
    """
    if not self._mix:
      return False
    rng = make_rng(self._seed, MIX, step, row)
    if rng.random() >= self._mix:
      return False
    task = self._mixed_in[int(rng.random() * len(self._mixed_in))]
    self._write(task, rng, tokens, answers)
    return True

  def _write(
    self,
    task: TokenTask,
    rng: np.random.Generator,
    tokens: np.ndarray,
    answers: np.ndarray,
  ) -> None:
    """Draws a sample of the row's length."""
    haystacks = Haystacks(self._store.split("train"), self._noise)
    sample = task.draw(rng, haystacks, length=len(tokens))
    tokens[:] = render(sample)
    answers[sample.answer.positions] = 1

  def _stretch(
    self, source: SourceConfig, rng: np.random.Generator, length: int
  ) -> np.ndarray:
    """What a row of `Task.COPY` repeats."""
    if source.haystack is Haystack.RANDOM:
      return self._ordinary[rng.integers(0, len(self._ordinary), length)]
    return _cut(self._store.split("train"), rng, length)


def question_lengths(cfg: Config, tokenizer: Tokenizer) -> dict[str, int]:
  """Least `seq_len` of every source with an answer, for `config.validate`.

  Returns:
    by `"stage/source"` index, and by `"stage/mix"` with a synthetic mix; rows
    have one token more than `seq_len`. Sources that break another rule are
    left out.

  Raises:
    ConfigError: naming sources that this tokenizer has too few ids for.
  """
  found, problems = {}, []
  for i, stage in enumerate(cfg.data.stages):
    for j, source in enumerate(stage.sources):
      if source.task in MAKERS and not source_problem(source):
        try:
          found[f"{i}/{j}"] = make_task(source, tokenizer).min_length - 1
        except ValueError as error:
          problems.append(f"data.stages[{i}].sources[{j}]: {error}")
    if cfg.data.synthetic_mix > 0:
      tasks = [make_task(source, tokenizer) for source in SYNTHETIC]
      found[f"{i}/mix"] = max(task.min_length for task in tasks) - 1
  if problems:
    raise ConfigError(problems)
  return found


class _Steps:
  """Random-access source of the batches of one process."""

  def __init__(self, data: TrainData, share: Share):
    self._data, self._share = data, share

  def __len__(self) -> int:
    return len(self._data)

  def __getitem__(self, index: SupportsIndex) -> Batch:
    return self._data.batch(operator.index(index), share=self._share)


def _make_task(source: SourceConfig, tokenizer: Tokenizer) -> TokenTask | None:
  return make_task(source, tokenizer) if source.task in MAKERS else None


def _cut(text: np.ndarray, rng: np.random.Generator, length: int) -> np.ndarray:
  """A random contiguous stretch of the split."""
  start = int(rng.random() * max(len(text) - length + 1, 1))
  return text[start : start + length]


def _shares(sources: tuple[SourceConfig, ...]) -> list[float]:
  """Ascending upper ends of the sources' shares of [0, 1]."""
  total = sum(s.weight for s in sources)
  return [w / total for w in itertools.accumulate(s.weight for s in sources)]


def _choose(shares: list[float], u: float) -> int:
  """Index of the share that holds `u` in [0, 1)."""
  return min(bisect.bisect_right(shares, u), len(shares) - 1)


def _plain(
  text: np.ndarray, starts: np.ndarray, seq_len: int, pad_id: int
) -> Batch:
  """Rows of text from `starts`; beyond the end, padding without weight."""
  index = starts[:, None] + np.arange(seq_len + 1)
  inside = index < len(text)
  rows = np.where(inside, np.take(text, index, mode="clip"), pad_id)
  rows = rows.astype(np.int32)
  weights = inside[:, 1:].astype(np.float32)
  return Batch(rows[:, :-1], rows[:, 1:], weights, np.zeros_like(weights))
