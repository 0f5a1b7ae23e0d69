"""The rules of the stages of training and their sources."""

from collections.abc import Iterator

from hsa_jax.config.fields import (
  Config,
  Haystack,
  Needle,
  SourceConfig,
  StageConfig,
  Task,
)

# Tasks whose filler is random ids, and tasks with one question of one thing.
RANDOM_TASKS = (
  Task.MQAR,
  Task.COPY_SPAN,
  Task.SELECTIVE_COPY,
  Task.INDUCTION,
)
SINGLE_TASKS = (
  Task.FWE,
  Task.PASSKEY,
  Task.GCA_PASSKEY,
  Task.COPY_SPAN,
  Task.SELECTIVE_COPY,
  Task.INDUCTION,
)


def stage_problems(
  cfg: Config, min_question_len: dict[str, int]
) -> Iterator[str]:
  """One line for every broken rule: field, value, rule, fix.

  Args:
    cfg: of the run.
    min_question_len: as in `rules.validate`.
  """
  if not 0 <= cfg.data.synthetic_mix <= 1:
    yield (
      f"data.synthetic_mix = {cfg.data.synthetic_mix}: must be in [0, 1], a"
      " share of the rows"
    )
  if not cfg.data.stages:
    yield "data.stages = (): needs at least one stage"
  for i, stage in enumerate(cfg.data.stages):
    key = f"data.stages[{i}]"
    yield from _stage(key, stage)
    if stage.batch_size % max(cfg.train.grad_accum_steps, 1):
      yield (
        f"{key}.batch_size = {stage.batch_size}: must be divisible by"
        f" train.grad_accum_steps = {cfg.train.grad_accum_steps}"
      )
    for j, source in enumerate(stage.sources):
      need = min_question_len.get(f"{i}/{j}", 0)
      yield from _too_short(key, stage, j, source, need)
    need = min_question_len.get(f"{i}/mix", 0)
    if stage.seq_len < need:
      yield (
        f"{key}.seq_len = {stage.seq_len}: data.synthetic_mix ="
        f" {cfg.data.synthetic_mix} needs {need} tokens"
      )


def _stage(key: str, stage: StageConfig) -> Iterator[str]:
  numbers = {
    f"{key}.num_steps": stage.num_steps,
    f"{key}.seq_len": stage.seq_len,
    f"{key}.batch_size": stage.batch_size,
  }
  for name, value in numbers.items():
    if value < 1:
      yield f"{name} = {value}: must be at least 1"
  yield from _group(key, stage)
  if not stage.sources:
    yield f"{key}.sources = (): needs at least one source"
  for j, source in enumerate(stage.sources):
    if not source.weight > 0:
      yield f"{key}.sources[{j}].weight = {source.weight}: must be above 0"
    problem = source_problem(source)
    if problem:
      yield f"{key}.sources[{j}].{problem}"


def _group(key: str, stage: StageConfig) -> Iterator[str]:
  """Segments of a row are equally long."""
  count, length = stage.neg_sampling_group, stage.seq_len
  if count < 1:
    yield f"{key}.neg_sampling_group = {count}: must be at least 1"
  elif length % count:
    near = max(round(length / count), 1) * count
    yield (
      f"{key}.seq_len = {length}: must be a multiple of neg_sampling_group ="
      f" {count}; nearest: {near}"
    )


def _too_short(
  key: str, stage: StageConfig, index: int, source: SourceConfig, need: int
) -> Iterator[str]:
  """Needles and questions must fit into a row, or into each of its segments."""
  count = max(stage.neg_sampling_group, 1)
  # The last segment has the token more that every row has.
  need = need * count + (count if count > 1 else 0)
  if stage.seq_len < need:
    parts = f" for {count} segments" if count > 1 else ""
    yield (
      f"{key}.seq_len = {stage.seq_len}: source {index} ({source.num_needles}"
      f" needles, {source.num_questions} questions) needs {need} tokens{parts}"
    )


def source_problem(source: SourceConfig) -> str:
  """The first broken rule of one source as `field = value: rule`, or ""."""
  return next(_source(source), "")


def _source(source: SourceConfig) -> Iterator[str]:
  task, haystack = source.task, source.haystack
  if haystack is Haystack.RANDOM and task not in (Task.COPY, *RANDOM_TASKS):
    yield (
      f"haystack = 'random': only with task = 'copy', got task ="
      f" {str(task)!r}; use 'text' or 'noise'"
    )
  if task is Task.COPY and haystack is Haystack.NOISE:
    yield "haystack = 'noise': task = 'copy' repeats 'text' or 'random'"
  if task in RANDOM_TASKS and haystack is not Haystack.RANDOM:
    yield (
      f"haystack = {str(haystack)!r}: task = {str(task)!r} hides its ids among"
      " random ones; use 'random'"
    )
  if source.needle is Needle.IDS and task is not Task.NIAH:
    yield (
      f"needle = 'ids': only with task = 'niah', got task = {str(task)!r}; use"
      " 'digits'"
    )
  yield from _counts(source)


def _counts(source: SourceConfig) -> Iterator[str]:
  """Needles and questions of a source."""
  needles, asked = source.num_needles, source.num_questions
  plain = (Task.NIAH, Task.MQAR, Task.GCA_MULTI_KEY)
  if source.task in plain and not 1 <= asked <= needles:
    yield f"num_questions = {asked}: must be in 1..num_needles = {needles}"
  if source.task is Task.MK_MQ and (asked % 2 or not 2 <= asked <= needles):
    yield (
      f"num_questions = {asked}: must be even and in 2..num_needles ="
      f" {needles}; task = 'mk_mq' asks for two in each question"
    )
  if source.task in (Task.VT, Task.GCA_HOPS):
    each = source.chain_length
    links = "variables" if source.task is Task.VT else "links"
    if each < 1:
      yield f"chain_length = {each}: must be at least 1"
    elif needles < each or needles % each:
      yield (
        f"num_needles = {needles}: must be a multiple of chain_length = {each},"
        f" the {links} of a chain of task = {str(source.task)!r}"
      )
    elif not 1 <= asked <= needles // each:
      yield f"num_questions = {asked}: must be in 1..{needles // each} chains"
  elif source.chain_length != SourceConfig.chain_length:
    yield (
      f"chain_length = {source.chain_length}: only task = 'vt' and 'gca_hops'"
      " have chains; leave it out"
    )
  if source.task in SINGLE_TASKS:
    for name, value in (("num_needles", needles), ("num_questions", asked)):
      if value != 1:
        yield f"{name} = {value}: task = {str(source.task)!r} has one; use 1"
