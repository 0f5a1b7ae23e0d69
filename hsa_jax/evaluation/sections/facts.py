"""What was evaluated."""

from collections.abc import Sequence

from hsa_jax.evaluation.pages import Cell, Facts, Table
from hsa_jax.evaluation.results import RunInfo
from hsa_jax.evaluation.runs import Run


def facts(info: RunInfo) -> Facts:
  """What the results of one run depend on."""
  return Facts(
    [
      ("checkpoint", info.checkpoint),
      ("steps", f"{info.step:,}"),
      ("parameters", f"{info.num_parameters:,}"),
      ("trained at", f"{info.train_length:,} tokens"),
      ("receptive field", _field(info)),
      ("model configuration", info.config_hash),
      ("tokenizer", info.tokenizer[:12]),
      ("token store", info.store[:12]),
      ("evaluation seed", str(info.seed)),
      ("keys and values stored as", info.kv_dtype),
      *([("overridden", info.overrides)] if info.overrides else []),
    ]
  )


def runs_table(runs: Sequence[Run]) -> Table:
  """What is compared, a line per run."""
  header = ("run", "parameters", "steps", "trained at", "receptive field")
  rows = [
    (
      Cell(run.name),
      Cell(f"{run.info.num_parameters:,}", run.info.num_parameters),
      Cell(f"{run.info.step:,}", run.info.step),
      Cell(f"{run.info.train_length:,} tokens", run.info.train_length),
      Cell(_field(run.info)),
    )
    for run in runs
  ]
  return Table(header, rows)


def _field(info: RunInfo) -> str:
  if info.receptive_field is None:
    return "whole context"
  return f"{info.receptive_field:,} tokens"
