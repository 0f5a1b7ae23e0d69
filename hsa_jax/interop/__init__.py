"""Other people's programs, on the models of this one."""

from hsa_jax.interop.harness import (
  HarnessModel,
  MissingHarnessError,
  import_harness,
  make_lm,
)
from hsa_jax.interop.reader import Reader, Ways
from hsa_jax.interop.requests import (
  Generation,
  RequestError,
  Span,
  pair_span,
  read_generation,
  rolling_span,
)
from hsa_jax.interop.scoring import Score, score_spans
from hsa_jax.interop.writing import continue_prompt

__all__ = [
  "Generation",
  "HarnessModel",
  "MissingHarnessError",
  "Reader",
  "RequestError",
  "Score",
  "Span",
  "Ways",
  "continue_prompt",
  "import_harness",
  "make_lm",
  "pair_span",
  "read_generation",
  "rolling_span",
  "score_spans",
]
