"""Results folders of made-up runs: every kind of line that suites write."""

import json
import math
import pathlib
from collections.abc import Sequence

import numpy as np

from hsa_jax.evaluation import scores
from hsa_jax.evaluation.results import ResultStore, RunInfo

RULER = (
  *(f"niah_single_{i}" for i in (1, 2, 3)),
  *(f"niah_multikey_{i}" for i in (1, 2, 3)),
  *("niah_multivalue", "niah_multiquery", "vt", "cwe", "fwe", "qa_1", "qa_2"),
)
INFO = RunInfo("hsa", "runs/hsa", 5, "h", "t", "s", 0, 1024, 1_000_000, None)


def key_fields(
  suite: str,
  task: str,
  length: int,
  count: int,
  *,
  protocol: str = "p",
  haystack: str = "text",
  needle: str = "digits",
) -> dict:
  return {
    "suite": suite,
    "protocol": protocol,
    "task": task,
    "haystack": haystack,
    "needle": needle,
    "length": length,
    "num_samples": count,
  }


def add_predictions(store: ResultStore, rows: Sequence[dict]) -> None:
  """As `store.add_prediction` for each, but with one wait for the disk."""
  with (store.path / "predictions.jsonl").open("a") as file:
    file.writelines(json.dumps(row) + "\n" for row in rows)


def add_job(
  store: ResultStore, key: dict, values: Sequence[float], **fields
) -> None:
  """Prediction lines with these scores, and their result line."""
  count, array = len(values), np.asarray(values, float)
  exact = bool(np.isin(array, (0, 1)).all())
  name = "correct" if exact else "score"
  rows = [
    {
      **key,
      "sample": i,
      "depth": (i + 0.5) / count,
      name: int(value) if exact else float(value),
      "recipe": {"start": i, "length": key["length"]},
    }
    for i, value in enumerate(values)
  ]
  add_predictions(store, rows)
  low, high = scores.score_interval(array)
  result = {"score": float(array.mean()), "ci_low": low, "ci_high": high}
  if exact:
    result["num_correct"] = int(array.sum())
  metric = "exact_match" if exact else "string_match_all"
  store.add_result({**key, **result, "metric": metric, **fields})


def add_ruler(
  store: ResultStore, lengths: Sequence[int], *, skill: float, count: int
) -> None:
  """The 13 tasks; scores fall with the length, quickly without skill."""
  for t, task in enumerate(RULER):
    for length in lengths:
      if task.startswith("qa") and length > 131_072:
        continue
      rng = np.random.default_rng([t, int(math.log2(length))])
      fall = 0.03 * (t + 1) / skill * max(math.log2(length / 1024), 0)
      mean = max(0.97 - fall, 0.02)
      refs = 4 if task in ("niah_multivalue", "niah_multiquery", "vt") else 1
      values = rng.binomial(refs, mean, count) / refs
      key = key_fields(
        "ruler", task, length, count, protocol="ruler-13", needle=""
      )
      add_job(store, key, values.tolist(), tokens_per_s=1e5)


def add_needles(
  store: ResultStore, lengths: Sequence[int], *, skill: float, count: int
) -> None:
  """A needle task with all diagnostics."""
  for length in lengths:
    rng = np.random.default_rng(length)
    lost = (math.log2(length) - 8) / 40 / skill
    values = (rng.random(count) > lost).astype(int).tolist()
    key = key_fields("hsa_ruler", "s_niah", length, count)
    table = [
      [2**k if k else 0, 2 ** (k + 1) - 1, 5 + (k % 4) * 20]
      for k in range(int(math.log2(length)) - 4)
    ]
    full = {
      "recall_at_k_by_group": [1 - lost, max(1 - 2 * lost, 0)],
      "rank_median_by_group": [1, 1 + int(30 * lost)],
      "distance_histogram": table,
    }
    add_job(store, key, values, recall_at_k=1 - lost, diagnostics=full)
  store.add_prediction(
    {**key, "sample": 0, "depth": 0.1, "correct": 1, "reads": make_reads(40)}
  )


def make_reads(num_chunks: int) -> dict:
  """Eight answer tokens, two groups, four chunks each; chunk 7 holds it."""
  rng = np.random.default_rng(0)
  groups = []
  for number, found in enumerate((0.9, 0.4)):
    chunks, weights = [], []
    for _ in range(8):
      others = rng.choice(num_chunks, 3, replace=False).tolist()
      chunks.append([7, *others])
      weights.append([found, *((1 - found) / 3 for _ in others)])
    where = {"group": number, "head": 0}
    groups.append({**where, "chunks": chunks, "weights": weights})
  return {
    "answer_tokens": list("4306 246"),
    "gold_chunks": [7] * 8,
    "groups": groups,
    "num_chunks": num_chunks,
  }


def add_text(store: ResultStore, *, level: float, count: int = 20) -> None:
  """Perplexity by position up to 4K, and of the last 512 by length."""
  rng = np.random.default_rng(0)
  edges = [(0, 1), *((2**k, 2 ** (k + 1) - 1) for k in range(1, 12))]
  key = key_fields(
    "ppl", "by_position", 4096, count, haystack="", needle="", protocol="full"
  )
  documents = []
  for i in range(count):
    base = rng.normal(0, 0.1)
    buckets = [
      {
        "first": a,
        "last": b,
        "num_targets": b - a + 1,
        "nats": (b - a + 1) * (level + base + 1.5 / (1 + k)),
      }
      for k, (a, b) in enumerate(edges)
    ]
    nats = sum(bucket["nats"] for bucket in buckets)
    row = {"sample": i, "nats": nats, "num_targets": 4096, "buckets": buckets}
    add_predictions(store, [{**key, **row}])
    documents.append(buckets)
  joined = []
  for parts in zip(*documents, strict=True):
    total = sum(part["num_targets"] for part in parts)
    mean = sum(part["nats"] for part in parts) / total
    line = {"num_targets": total, "nats_per_token": mean}
    where = {name: parts[0][name] for name in ("first", "last")}
    joined.append({**where, **line, "perplexity": math.exp(mean)})
  _add_text_line(store, key, level + 0.1, joined)
  for length in (512, 2048, 8192, 32_768):
    line = key | {"task": "last_512", "protocol": "last", "length": length}
    nats = level + 0.4 * 512 / length
    targets = {"num_targets": 512}
    rows = [
      {**line, "sample": i, "nats": 512 * (nats + i / 500), **targets}
      for i in range(count)
    ]
    add_predictions(store, rows)
    _add_text_line(store, line, nats, [])


def _add_text_line(
  store: ResultStore, key: dict, nats: float, buckets: list
) -> None:
  store.add_result(
    {
      **key,
      "score": nats,
      "ci_low": nats - 0.05,
      "ci_high": nats + 0.05,
      "metric": "nats_per_token",
      "perplexity": math.exp(nats),
      "bits_per_byte": nats / 2,
      "bits_per_byte_low": nats / 2 - 0.02,
      "bits_per_byte_high": nats / 2 + 0.02,
      "num_targets": 999,
      "buckets": buckets,
    }
  )


def make_run(
  folder: pathlib.Path,
  label: str = "hsa",
  *,
  skill: float = 1.0,
  lengths: Sequence[int] = (1024, 4096, 16_384, 65_536, 262_144, 1_048_576),
  count: int = 10,
  ruler: bool = True,
) -> pathlib.Path:
  """A run with needles, RULER, text, a curve and a suite nobody knows."""
  store = ResultStore(folder, INFO._replace(label=label))
  add_needles(store, lengths, skill=skill, count=count)
  if ruler:
    add_ruler(store, lengths, skill=skill, count=count)
  add_text(store, level=1.5 / skill)
  add_curve(store, skill)
  strange = key_fields("strange", "", 4096, 3, haystack="", needle="")
  store.add_result({**strange, "score": 17.5, "metric": "furlongs", "gap": 2})
  return folder


def add_curve(store: ResultStore, skill: float) -> None:
  key = key_fields("effective_remembrance", "", 4096, 5, haystack="", needle="")
  curve = [
    {
      "t": 4096 - 2**k,
      "kept": 2**k,
      "mean": 0.4 / (1 + k / skill),
      "ci_low": 0.3 / (1 + k / skill),
      "ci_high": 0.5 / (1 + k / skill),
    }
    for k in range(12)
  ]
  line = {"score": 0.1, "metric": "total_variation", "curve": curve}
  store.add_result({**key, **line})
