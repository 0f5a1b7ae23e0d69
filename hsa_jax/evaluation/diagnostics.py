"""Figures of retrieval, made of the traces of both engines.

  recall      was a gold chunk among those selected (in any retrieval head)
  rank        place of the gold chunk among all visible ones, 1 is the best;
              of several heads and gold chunks the best place counts
  distance    chunks between the one that holds the asking token and a selected
              one: 1 is the chunk before; in buckets [2^k, 2^(k+1))
  reads       the selected chunks and their weights, for a picture

Recall is always told; the others cost time and room, and are asked for with
`--diagnostics=full`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from hsa_jax.data.sample import NOWHERE
from hsa_jax.evaluation import scores
from hsa_jax.evaluation.retrieval import Trace
from hsa_jax.evaluation.session import Diagnostics, Session, Settings
from hsa_jax.memory import NO_RANK, Detail, RecordingMemory, rank_chunks

NUM_READS = 3  # samples of a job whose reads are kept
_DECIMALS = 4  # of weights in the files


def hits(trace: Trace, gold: Int[np.ndarray, "n E"]) -> Bool[np.ndarray, "n E"]:
  """Whether each gold chunk was selected for its token, in any head."""
  same = trace.index[:, None] == gold[:, :, None, None]
  return (same & trace.valid[:, None]).any(axis=(2, 3))


def ranks(
  memory: RecordingMemory,
  traces: Sequence[Trace],
  golds: Sequence[Int[np.ndarray, "n E"]],
  *,
  batch: int,
) -> list[Int[np.ndarray, "n E"]]:
  """Rank of each gold chunk in its best head; `NO_RANK` without one.

  Args:
    memory: all chunks.
    traces: one per sample, of the same group, with queries.
    golds: gold chunks of each; `NOWHERE` fills.
    batch: rows of the memory; the samples are the first of them.
  """
  sizes = [gold.size for gold in golds]
  shape = (batch, max(sizes))
  assert traces[0].query is not None, "queries are recorded"
  query = np.zeros((*shape, *traces[0].query.shape[1:]), np.float32)
  chunk, visible = np.full(shape, NOWHERE), np.zeros(shape, int)
  for row, (trace, gold) in enumerate(zip(traces, golds, strict=True)):
    assert trace.query is not None, "queries are recorded"
    each, size = gold.shape[1], gold.size
    query[row, :size] = np.repeat(trace.query, each, axis=0)
    chunk[row, :size] = gold.reshape(-1)
    visible[row, :size] = np.repeat(trace.num_visible, each)
  found = rank_chunks(memory, query, chunk, visible)
  best = np.min(found, axis=2)  # NO_RANK in one head is NO_RANK in all
  return [
    best[row, : gold.size].reshape(gold.shape) for row, gold in enumerate(golds)
  ]


def distance_counts(trace: Trace, chunk_size: int) -> list[int]:
  """Selected chunks by distance, in buckets [2^k, 2^(k+1)) from k = 0."""
  own = trace.position // chunk_size
  away = (own[:, None, None] - trace.index)[trace.valid]
  return np.bincount(np.log2(away).astype(int)).tolist() if len(away) else []


def detail_of(settings: Settings) -> Detail:
  """What has to be recorded."""
  full = settings.diagnostics is Diagnostics.FULL
  return Detail.QUERIES_AND_WEIGHTS if full else Detail.SELECTIONS


def explain(
  session: Session,
  recorder: RecordingMemory,
  numbers: Sequence[int],
  traces: Sequence[Sequence[Trace]],
  golds: Sequence[Int[np.ndarray, "n E"]],
  words: Sequence[Sequence[str]],
) -> list[dict[str, Any]]:
  """More fields of the prediction lines, with `--diagnostics=full`.

  Args:
    session: the evaluation.
    recorder: the memory behind the answers.
    numbers: which samples.
    traces: per sample and upper group.
    golds: per sample the gold chunks of each answer token.
    words: per sample the text of each answer token.
  """
  settings = session.settings
  if settings.diagnostics is not Diagnostics.FULL or not traces[0]:
    return [{} for _ in traces]
  lines = diagnose(
    recorder,
    traces,
    golds,
    batch=settings.batch,
    chunk_size=session.prefill.chunk_size,
  )
  count = recorder.num_chunks
  parts = zip(numbers, lines, traces, golds, words, strict=True)
  return [
    {"diagnostics": line}
    if number >= NUM_READS
    else {
      "diagnostics": line,
      "reads": describe_reads(groups, gold, texts, count),
    }
    for number, line, groups, gold, texts in parts
  ]


def diagnose(
  memory: RecordingMemory,
  traces: Sequence[Sequence[Trace]],
  golds: Sequence[Int[np.ndarray, "n E"]],
  *,
  batch: int,
  chunk_size: int,
) -> list[dict[str, Any]]:
  """The field `diagnostics` of each sample of a batch.

      gold_tokens          answer tokens that have a gold chunk
      recalled_by_group    those with one selected, per group
      ranks_by_group       per group and answer token the best rank of a gold
                           chunk; null without one
      distances_by_group   per group the counts of `distance_counts`

  Args:
    memory: all chunks, after the answers.
    traces: per sample and group, with queries.
    golds: per sample the gold chunks of each answer token.
    batch: rows of the memory.
    chunk_size: tokens of a chunk.
  """
  places = [
    ranks(memory, group, golds, batch=batch)
    for group in zip(*traces, strict=True)
  ]
  return [
    {
      "gold_tokens": int((gold != NOWHERE).any(axis=1).sum()),
      "recalled_by_group": [
        int(hits(trace, gold).any(axis=1).sum()) for trace in groups
      ],
      "ranks_by_group": [_best_ranks(place[row]) for place in places],
      "distances_by_group": [
        distance_counts(trace, chunk_size) for trace in groups
      ],
    }
    for row, (groups, gold) in enumerate(zip(traces, golds, strict=True))
  ]


def _best_ranks(found: Int[np.ndarray, "n E"]) -> list[int | None]:
  """The best rank of each token's gold chunks."""
  known = [row[row != NO_RANK] for row in found]
  return [int(row.min()) if len(row) else None for row in known]


def describe_reads(
  groups: Sequence[Trace],
  gold: Int[np.ndarray, "n E"],
  words: Sequence[str],
  num_chunks: int,
) -> dict[str, Any]:
  """The field `reads` of a sample: what each answer token read.

  answer_tokens   text of each
  gold_chunks     gold chunk of each, -1 without one; of several the one
                  that was selected, else the first
  groups          per upper group and retrieval head `chunks`, a list of
                  chunk ids for each answer token, nearest first, and
                  `weights`, the list of their weights, or null
  num_chunks      of the whole sample
  """
  found = np.stack([hits(trace, gold) for trace in groups]).any(axis=0)
  first = np.argmax(found, axis=1)  # 0 where none was selected
  return {
    "answer_tokens": list(words),
    "gold_chunks": gold[np.arange(len(gold)), first].tolist(),
    "groups": [
      {"group": number, "head": head, **_head_reads(trace, head)}
      for number, trace in enumerate(groups)
      for head in range(trace.index.shape[1])
    ],
    "num_chunks": num_chunks,
  }


def _head_reads(trace: Trace, head: int) -> dict[str, Any]:
  index, valid = trace.index[:, head], trace.valid[:, head]
  chunks = [i[v].tolist() for i, v in zip(index, valid, strict=True)]
  if trace.weights is None:
    return {"chunks": chunks, "weights": None}
  # One retrieval head may serve several memory heads, with equal weights.
  share = trace.weights.shape[1] // trace.index.shape[1]
  shares = np.round(trace.weights[:, head * share].astype(float), _DECIMALS)
  weights = [w[v].tolist() for w, v in zip(shares, valid, strict=True)]
  return {"chunks": chunks, "weights": weights}


def summarise_diagnostics(rows: Sequence[dict]) -> dict[str, Any]:
  """The field `diagnostics` of a result line; nothing without any in the rows.

  num_samples            that have diagnostics
  recall_at_k_by_group   share of answer tokens with a gold chunk selected
  rank_median_by_group   over the answer tokens that have a gold chunk
  rank_p90_by_group      their 90th percentile
  distance_histogram     [low, high, count] of all selected chunks, in
                         chunks, both ends included
  distance_histogram_by_group
  """
  parts = [row["diagnostics"] for row in rows if row.get("diagnostics")]
  if not parts:
    return {}
  groups = range(len(parts[0]["recalled_by_group"]))
  placed = [
    [r for p in parts for r in p["ranks_by_group"][g] if r is not None]
    for g in groups
  ]
  gold = sum(p["gold_tokens"] for p in parts)
  counts = [_add([p["distances_by_group"][g] for p in parts]) for g in groups]
  return {
    "diagnostics": {
      "num_samples": len(parts),
      "recall_at_k_by_group": [
        scores.share(sum(p["recalled_by_group"][g] for p in parts), gold)
        for g in groups
      ],
      "rank_median_by_group": [_quantile(p, 0.5) for p in placed],
      "rank_p90_by_group": [_quantile(p, 0.9) for p in placed],
      "distance_histogram": _histogram(_add(counts)),
      "distance_histogram_by_group": [_histogram(c) for c in counts],
    }
  }


def _quantile(values: Sequence[int], share: float) -> float | None:
  return float(np.quantile(values, share)) if values else None


def _add(counts: Sequence[Sequence[int]]) -> list[int]:
  total = np.zeros(max(map(len, counts), default=0), int)
  for part in counts:
    total[: len(part)] += np.asarray(part, int)
  return total.tolist()


def _histogram(counts: Sequence[int]) -> list[list[int]]:
  return [[1 << k, (2 << k) - 1, count] for k, count in enumerate(counts)]
