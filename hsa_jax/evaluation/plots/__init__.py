"""Pictures of an evaluation; every function writes one PNG file."""

from hsa_jax.evaluation.plots.accuracy import (
  Curve,
  Panel,
  Point,
  accuracy_by_length,
)
from hsa_jax.evaluation.plots.attention import (
  LayerLine,
  attention_by_length,
)
from hsa_jax.evaluation.plots.depth import (
  Grid,
  Sample,
  count_cells,
  heat_maps,
)
from hsa_jax.evaluation.plots.difference import Difference, differences
from hsa_jax.evaluation.plots.retrieval import (
  Histogram,
  Reads,
  Recall,
  distances,
  reads_picture,
  recall_by_group,
  shown_chunks,
  weight_table,
)
from hsa_jax.evaluation.plots.text import (
  Band,
  perplexity_by_length,
  perplexity_by_position,
  remembrance,
)

__all__ = [
  "Band",
  "Curve",
  "Difference",
  "Grid",
  "Histogram",
  "LayerLine",
  "Panel",
  "Point",
  "Reads",
  "Recall",
  "Sample",
  "accuracy_by_length",
  "attention_by_length",
  "count_cells",
  "differences",
  "distances",
  "heat_maps",
  "perplexity_by_length",
  "perplexity_by_position",
  "reads_picture",
  "recall_by_group",
  "remembrance",
  "shown_chunks",
  "weight_table",
]
