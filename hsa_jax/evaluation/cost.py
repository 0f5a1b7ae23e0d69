"""What a batch of samples took: seconds, tokens really read, memory."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from hsa_jax.evaluation.session import footprint
from hsa_jax.memory import MemoryBytes


class Cost(NamedTuple):
  """Of one batch.

  Attributes:
    prefill_s: seconds until every chunk was in the memory.
    answer_s: seconds of the rest: the upper decoder, or the decoding.
    tokens_read: per row; fewer than the context has where an interrupted one
      was taken up, or a model cannot see all of it.
    memory: bytes of the chunks.
    device_bytes: arrays that lived on the devices after the prefill.
  """

  prefill_s: float
  answer_s: float
  tokens_read: int
  memory: MemoryBytes
  device_bytes: int


def cost_fields(cost: Cost, rows: int, *, answer: str) -> dict[str, Any]:
  """Each sample's share of what its batch took.

  Args:
    cost: of the batch.
    rows: samples of the batch.
    answer: name of the field for `answer_s`, as `suffix_s`.
  """
  return {
    "tokens_read": cost.tokens_read,
    "prefill_s": cost.prefill_s / rows,
    answer: cost.answer_s / rows,
    "peak_rss_bytes": footprint().peak_rss_bytes,
    "device_bytes": cost.device_bytes,
    "host_bytes": cost.memory.host,
    "disk_bytes": cost.memory.disk,
  }


def summarise_cost(rows: Sequence[dict], *, answer: str) -> dict[str, Any]:
  """Speed and memory of a job, for its result line; `answer` as above."""
  read = sum(row["tokens_read"] for row in rows)
  return {
    "tokens_per_s": read / sum(row["prefill_s"] for row in rows),
    f"{answer}_per_sample": sum(row[answer] for row in rows) / len(rows),
    "peak_rss_bytes": max(row["peak_rss_bytes"] for row in rows),
    "device_bytes": max(row["device_bytes"] for row in rows),
    "host_bytes": max(row["host_bytes"] for row in rows),
    "disk_bytes": max(row["disk_bytes"] for row in rows),
  }
