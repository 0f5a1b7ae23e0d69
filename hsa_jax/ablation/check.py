"""Everything that can be known to be wrong with a grid before it runs."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hsa_jax.ablation.grid import Cell, Grid, Undefined
from hsa_jax.ablation.resolve import (
  MATCHED_FIELD,
  Resolved,
  changed_fields,
  resolve_all,
)
from hsa_jax.config import (
  Config,
  ConfigError,
  covers,
  validate,
  with_overrides,
)
from hsa_jax.data.errors import DataError
from hsa_jax.data.pipeline import question_lengths
from hsa_jax.data.tokenizer import Tokenizer, load_tokenizer
from hsa_jax.evaluation import SUITES, FlagError
from hsa_jax.evaluation.lengths import parse_lengths, parse_samples
from hsa_jax.evaluation.suite import select_suites, task_names
from hsa_jax.models.parameters import count_parameters
from hsa_jax.training.beginning import unlike

TOLERANCE = 0.01  # of the parameters, between a matched cell and the base


def check(
  grid: Grid, cells: Sequence[Cell], extra: Mapping[str, Any]
) -> tuple[list[Resolved], list[str]]:
  """Resolves all cells; every problem is a line that begins with its cell.

  Args:
    grid: the grid.
    cells: those that are meant to run.
    extra: overrides of the command line.

  Returns:
    The cells that resolve, and the problems of the grid.
  """
  problems = [*_extra(cells, extra)]
  found, broken = resolve_all(grid, cells, {} if problems else extra)
  problems += broken
  tokenizers: dict[str, Tokenizer | str] = {}
  for one in found:
    problems += [f"{one.cell.name}: {line}" for line in _data(one, tokenizers)]
  problems += [*_claims(grid, found, extra), *_alike(found)]
  problems += _beginnings(found)
  for name in grid.undefined:
    problems += _undefined(grid, name)
  return found, [*problems, *_measures(grid)]


def unclaimed(grid: Grid, one: Resolved, extra: Mapping[str, Any]) -> list[str]:
  """Fields in which a cell differs from the base without saying so."""
  claimed = [*one.cell.overrides, *extra]
  if one.cell.matched:
    claimed.append(MATCHED_FIELD)
  return [
    line
    for line in changed_fields(grid.base, one.cfg)
    if not any(covers(path, line.split(":")[0]) for path in claimed)
  ]


def _extra(cells: Sequence[Cell], extra: Mapping[str, Any]) -> Iterator[str]:
  """An override must not undo what a cell is about."""
  for path in extra:
    if path.startswith("model."):
      yield (
        f"--config.{path}: the model belongs to the grid file; change it there"
      )
    for cell in cells:
      for own in cell.overrides:
        if covers(own, path) or covers(path, own):
          yield f"--config.{path}: cell {cell.name!r} sets {own}; leave it out"


def _data(
  one: Resolved, tokenizers: dict[str, Tokenizer | str]
) -> Iterator[str]:
  """Rules that need the tokenizer, as `train.py` knows them."""
  cfg: Config = one.cfg
  name = cfg.data.tokenizer
  if name not in tokenizers:
    try:
      tokenizers[name] = load_tokenizer(name)
    except (DataError, ValueError, OSError) as error:
      tokenizers[name] = str(error)
  tokenizer = tokenizers[name]
  if isinstance(tokenizer, str):
    yield tokenizer
    return
  try:
    validate(
      cfg,
      min_question_len=question_lengths(cfg, tokenizer),
      tokenizer_vocab_size=tokenizer.vocab_size,
    )
  except ConfigError as error:
    yield from error.problems


def _claims(
  grid: Grid, found: Sequence[Resolved], extra: Mapping[str, Any]
) -> Iterator[str]:
  base = count_parameters(grid.base.model).total
  for one in found:
    for line in unclaimed(grid, one, extra):
      yield f"{one.cell.name}: {line}: not among its overrides"
    share = one.parameters / base - 1
    if one.cell.matched and abs(share) > TOLERANCE:
      yield f"{one.cell.name}: {one.parameters:,} parameters, {share:+.1%}"


def _alike(found: Sequence[Resolved]) -> Iterator[str]:
  """A cell equal to the base tests nothing."""
  for one in found:
    first = next(o for o in found if _same(o, one))
    if first is not one:
      yield f"{one.cell.name}: the same configuration as {first.cell.name!r}"


def _beginnings(found: Sequence[Resolved]) -> Iterator[str]:
  """The parameters of one cell must fit into what goes on with them."""
  for one in found:
    if one.after and one.after.cfg.model != one.cfg.model:
      for line in unlike(one.after.cfg.model, one.cfg.model)[:1]:
        name = one.after.cell.name
        yield f"{one.cell.name}: begins with {name!r}, another model: {line}"


def _same(one: Resolved, other: Resolved) -> bool:
  """Whether nothing tells two cells apart, in training or evaluation."""
  flags = one.cell.eval_flags == other.cell.eval_flags
  return flags and one.cell.after == other.cell.after and one.cfg == other.cfg


def _undefined(grid: Grid, one: Undefined) -> Iterator[str]:
  """What is said to have no meaning must be refused by the rules."""
  try:
    validate(with_overrides(grid.base, one.overrides))
  except ConfigError:
    return
  yield f"{one.name}: said to be undefined, but it is a valid configuration"


def _measures(grid: Grid) -> Iterator[str]:
  """Flags of `eval.py` that it would refuse."""
  names = tuple(suite.name for suite in SUITES)
  for measure in grid.measures:
    suites = [name for name in measure.suites.split(",") if name]
    unknown = [name for name in suites if name not in names]
    for name in unknown:
      yield f"measures: suite {name!r} is not one of {', '.join(names)}"
    if unknown:
      continue
    known = task_names(select_suites(SUITES, suites))
    for task in filter(None, measure.tasks.split(",")):
      if task not in known:
        yield f"measures: task {task!r} is not one of {', '.join(known)}"
    for parse, text in (
      (parse_lengths, measure.lengths),
      (parse_samples, measure.samples),
    ):
      try:
        parse(text)
      except FlagError as error:
        yield from (f"measures: {line}" for line in error.problems)
