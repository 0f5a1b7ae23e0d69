"""The ablation grid: one base, and cells that differ from it by a few fields.

List:     python -m hsa_jax.cli.sweep --config=configs/ablation.py --list
Run:      python -m hsa_jax.cli.sweep --config=configs/ablation.py --size=tiny --subset=principles --seeds=5 --run --jobs=2
Report:   python -m hsa_jax.cli.sweep --config=configs/ablation.py --size=tiny --report
One cell: python train.py --config=configs/ablation.py:tiny/A3-standard --workdir=runs/a3
          (python train.py --config=configs/ablation.py is the base of `tiny`)
All:      make ablation

A cell is a line: name, axis, claim, fields. Its values follow from those of the
base, so that one grid serves all sizes. docs/ablation.md says how to read it.

Sizes:    tiny   minutes a cell on one core; measured, see docs/ablation.md
          smoke  seconds; shows that everything works, learns nothing
          small  one GPU; not measured here
          paper  configs/paper_240m.py; not measured here
"""

import dataclasses

from configs._ablation_bases import BASES, MEASURES, baselines
from configs._ablation_sparsity import other_slots, sparsity
from hsa_jax import config as c
from hsa_jax.ablation import Cell, Grid, Undefined, cell_config
from hsa_jax.config import SourceConfig, Task

SIZES = tuple(BASES)

SUBSETS = {
  "principles": ("A0", "A1-none", "A2", "A3", "A4", "B2"),
  "square": ("A0", "A1-none", "A3"),
  "encoder": ("A1",),
  "top_k": ("A6", "A9"),
  "rows": ("A7",),
  "sharing": ("A8",),
  "weights": ("A5",),
  "chunk_size": ("A10",),
  "window": ("A11",),
  "position": ("A12",),
  "groups": ("A13",),
  "options": ("A14",),
  "schedules": ("A6-grow", "A6-dense", "A11-warm", "S1", "S2"),
  "baselines": ("B1", "B2", "B3", "B7"),
}


def subsets_of(base):
  """All of them. `sparsity` takes away one rule at a time.

  The rules: few slots, rows with many more chunks than these, a retrieval of
  each token's own. `top_k`, `rows` and `sharing` have what lies between.
  """
  hsa, rows = base.model.hsa, base.data.stages[-1].seq_len
  broken = (
    f"A6-k{rows // hsa.chunk_size}",
    f"A7-rows{rows // 2}",
    f"A8-every{hsa.chunk_size}",
  )
  return {"principles": SUBSETS["principles"], "sparsity": broken, **SUBSETS}


def principles(base):
  """Encoder x CLS x bypass; the base has all three."""
  mean = {"model.hsa.landmark": "mean"}
  none = {"model.hsa.encoder_layers": 0, **mean}
  standard = {"model.hsa.residual": "standard"}
  layers = base.model.hsa.encoder_layers
  more = {"model.hsa.encoder_layers": 2 if layers == 1 else 1}
  return (
    Cell(
      "A0",
      "principles",
      "none of the three principles is needed",
      {**none, **standard},
      matched=True,
    ),
    Cell(
      "A1-none",
      "encoder",
      "a chunk's own states serve as keys and, averaged, as its landmark",
      none,
      matched=True,
    ),
    Cell(
      f"A1-layers{more['model.hsa.encoder_layers']}",
      "encoder",
      "the depth of the encoder matters",
      more,
      matched=True,
    ),
    Cell(
      "A2-mean",
      "landmark",
      "the mean of the encoded tokens is as good a landmark as a CLS token",
      mean,
      matched=True,
    ),
    Cell(
      "A3-standard",
      "residual",
      "what was retrieved may enter the stream directly",
      standard,
      matched=True,
    ),
    Cell(
      "A4-encoder",
      "principles",
      "an encoder alone is enough",
      {**mean, **standard},
      matched=True,
    ),
  )


def undefined():
  """Corners of the cube without a model."""
  reason = "a CLS token is read by the encoder; without one there is none"
  none = {"model.hsa.encoder_layers": 0, "model.hsa.landmark": "cls"}
  return (
    Undefined(
      "A4-cls",
      "principles",
      reason,
      {**none, "model.hsa.residual": "standard"},
    ),
    Undefined(
      "A4-cls-bypass",
      "principles",
      reason,
      {**none, "model.hsa.residual": "bypass"},
    ),
  )


def weights(base):
  """Every rule that the base does not have."""
  about = {
    c.Weighting.STICK_BREAKING: "weights by stick-breaking, nearest first",
    c.Weighting.SOFTMAX: "weights by softmax of the scores",
    c.Weighting.SOFTMAX_DECAY: "softmax with a learned slope over the rank",
    c.Weighting.MASS: "weights by attention mass: the score is not trained",
  }
  return tuple(
    Cell(
      f"A5-{rule}",
      "weighting",
      claim,
      {"model.hsa.weighting": str(rule)},
      matched=True,
    )
    for rule, claim in about.items()
    if rule is not base.model.hsa.weighting
  )


def sizes_of_parts(base):
  """Chunks and windows."""
  hsa, steps = base.model.hsa, base.num_steps
  size, window = hsa.chunk_size, base.model.window_size
  chunks = [
    Cell(
      f"A10-chunk{n}",
      "chunk size",
      "the size of the chunks does not matter at equal slots",
      {"model.hsa.chunk_size": n},
    )
    for n in (size // 2, 2 * size, 4 * size)
  ]
  windows = [
    Cell(
      f"A11-window{n}",
      "window",
      "a wider window does not keep the memory from being learned",
      {"model.window_size": n},
    )
    for n in (2 * window, 4 * window)
  ]
  schedule = ((0, window), (steps // 2, 4 * window))
  return (
    *chunks,
    *windows,
    Cell(
      "A11-warm",
      "window",
      "a wide window does no harm once the memory is learned",
      {
        "model.window_size": 4 * window,
        "train.window_schedule": schedule,
      },
    ),
  )


def positions():
  """Of the window layers, and of the reads, which have none."""
  windows = tuple(
    Cell(f"A12-{kind}", "position", claim, {"model.position": kind})
    for kind, claim in (
      ("none", "the window layers need no positions"),
      ("absolute_rope", "angles of absolute positions do as well"),
    )
  )
  read = Cell(
    "A12-read",
    "position",
    "what is read may have rotary positions",
    {"model.hsa.position": "absolute_rope"},
  )
  return (*windows, read)


def groups(base):
  """Number of retrievals and heads, and where the memory is taken."""
  model = base.model
  lower, upper = model.num_lower_layers, model.num_upper_layers
  shift, every = max(1, lower // 2), model.hsa.num_groups
  two = {"model.hsa.num_groups": 2 * every}
  if upper % (2 * every):
    two["model.num_upper_layers"] = 2 * every
  heads = {"model.hsa.num_memory_heads": 2 * model.hsa.num_memory_heads}
  moved = [("shallow", -shift), ("deep", shift)]
  return (
    Cell("A13-twice", "groups", "one retrieval is enough", two, matched=True),
    Cell(
      "A13-heads", "heads", "one memory head is enough", heads, matched=True
    ),
    *(
      Cell(
        f"A13-{name}",
        "boundary",
        "the depth at which the memory is taken does not matter",
        {
          "model.num_lower_layers": lower + by,
          "model.num_upper_layers": upper - by,
        },
        matched=True,
      )
      for name, by in moved
      if lower + by >= 1 and upper - by >= every and not (upper - by) % every
    ),
  )


def options(base):
  """Switches, each turned to the value that the base does not have."""
  hsa = base.model.hsa
  heads = hsa.num_memory_heads > 1
  switches = {
    "sink": ("model.hsa.sink", 1 - hsa.sink),
    "qk_norm": ("model.hsa.qk_norm", not hsa.qk_norm),
    "gumbel": ("model.hsa.selection_noise", "gumbel"),
    "exclude": ("model.hsa.window_overlap", "exclude"),
    "prenorm": ("model.hsa.encoder_prenorm", not hsa.encoder_prenorm),
    "landmark_norm": ("model.hsa.landmark_norm", not hsa.landmark_norm),
    **({"single": ("model.hsa.retrieval_heads", "single")} if heads else {}),
    "block_window": ("model.hsa.block_window", not hsa.block_window),
  }
  return tuple(
    Cell(
      f"A14-{name}",
      "option",
      f"{path.rpartition('.')[2]} makes no difference",
      {path: value},
      matched=True,
    )
    for name, (path, value) in switches.items()
  )


def schedules(base):
  """What comes first in training, and what stands in a row beside it."""
  first, last = base.data.stages[0], len(base.data.stages) - 1
  stage = base.data.stages[last]
  copy = dataclasses.replace(
    first,
    name="copy",
    num_steps=max(1, first.num_steps // 4),
    sources=(SourceConfig(task=Task.COPY),),
  )
  return (
    Cell(
      "S1-copy",
      "curriculum",
      "rows that repeat themselves teach the memory first",
      {"data.stages": (copy, *base.data.stages)},
    ),
    *(
      Cell(
        f"S2-segments{n}",
        "distractors",
        "the same samples, several to a row, teach more",
        {
          f"data.stages[{last}].seq_len": stage.seq_len * n,
          f"data.stages[{last}].batch_size": stage.batch_size // n,
          f"data.stages[{last}].neg_sampling_group": n,
        },
      )
      for n in (2, 4)
      if stage.batch_size % n == 0
    ),
  )


def get_grid(size="tiny") -> Grid:
  """The grid of a size."""
  base = BASES[size]()
  return Grid(
    size=size,
    base=base,
    cells=(
      *principles(base),
      *weights(base),
      *sparsity(base),
      *sizes_of_parts(base),
      *positions(),
      *groups(base),
      *options(base),
      *other_slots(base),
      *schedules(base),
      *baselines(base),
    ),
    measures=MEASURES[size],
    subsets=subsets_of(base),
    undefined=undefined(),
    claim="encoder, CLS and bypass: the full model",
  )


def get_config(name="tiny/base"):
  return cell_config(get_grid, name)
