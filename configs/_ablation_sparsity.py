"""The ablation grid: slots, rows, and tokens that share a retrieval."""

import dataclasses

from hsa_jax.ablation import Cell
from hsa_jax.config import Task


def denser(source, up, down):
  """As many needles to a token in rows of `up / down` of the length."""
  if source.num_needles == 1:
    return source
  least = 2 if source.task is Task.MK_MQ else 1
  return dataclasses.replace(
    source,
    num_needles=source.num_needles * up // down,
    num_questions=max(
      least, source.num_questions * up // down // least * least
    ),
  )


def longer_rows(stage, index, up, down):
  """Rows of `up / down` of the length: as many tokens, as many needles."""
  sources = tuple(denser(source, up, down) for source in stage.sources)
  fields = {
    "seq_len": stage.seq_len * up // down,
    "batch_size": stage.batch_size * down // up,
    **({"sources": sources} if sources != stage.sources else {}),
  }
  return {f"data.stages[{index}].{name}": v for name, v in fields.items()}


def sparsity(base):
  """Slots, rows, and tokens that share a retrieval."""
  hsa, last = base.model.hsa, len(base.data.stages) - 1
  stage = base.data.stages[last]
  every = stage.seq_len // hsa.chunk_size
  steps = base.num_steps
  slots = [
    Cell(
      f"A6-k{k}",
      "top_k",
      "the retriever need not be made to choose",
      {"model.hsa.top_k": k},
    )
    for k in sorted({2 * hsa.top_k, 4 * hsa.top_k, every})
  ]
  grow = ((0, hsa.top_k // 2), (steps // 2, hsa.top_k))
  dense = ((0, every), (steps // 2, hsa.top_k))
  rows = [
    Cell(
      f"A7-rows{stage.seq_len * up // down}",
      "training length",
      "the length of the rows does not matter at equal tokens and needles",
      longer_rows(stage, last, up, down),
    )
    for up, down in ((1, 2), (2, 1))
    if stage.batch_size * down % up == 0
  ]
  shared = [
    Cell(
      f"A8-every{b}",
      "tokens per retrieval",
      "tokens may share a retrieval",
      {"model.hsa.tokens_per_retrieval": b},
    )
    for b in (hsa.chunk_size // 4, hsa.chunk_size)
  ]
  return (
    *slots,
    Cell(
      "A6-grow",
      "top_k",
      "fewer slots at the beginning teach selection",
      {"train.top_k_schedule": grow},
    ),
    Cell(
      "A6-dense",
      "top_k",
      "all chunks at the beginning teach what to select later",
      {"model.hsa.top_k": every, "train.top_k_schedule": dense},
      eval_flags=(f"--override=model.hsa.top_k={hsa.top_k}",),
    ),
    *rows,
    *shared,
  )


def other_slots(base):
  """Trained with one K, read with another: nothing is trained again for it."""
  few = base.model.hsa.top_k
  many = 4 * few
  return tuple(
    Cell(
      f"A9-k{trained}to{read}",
      "top_k at test time",
      "what was learned with some slots is of use with others",
      {"model.hsa.top_k": trained} if trained != few else {},
      eval_flags=(f"--override=model.hsa.top_k={read}",),
    )
    for trained, read in ((few, many), (many, few))
  )
