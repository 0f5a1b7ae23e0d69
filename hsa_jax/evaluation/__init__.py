"""Long-context evaluation: streaming, suites, scores, files, reports."""

from hsa_jax.evaluation import (
  attention,
  babilong,
  copying,
  gca,
  hsa_ruler,
  mqar,
  passkey,
  perplexity,
  remembrance,
  ruler,
)
from hsa_jax.evaluation.compare import write_paired
from hsa_jax.evaluation.lengths import FlagError
from hsa_jax.evaluation.report import write_comparison, write_report
from hsa_jax.evaluation.results import ResultsError, ResultStore, RunInfo
from hsa_jax.evaluation.session import Job, Session, Settings
from hsa_jax.evaluation.suite import Asked, Suite
from hsa_jax.inference.stream import Prefill, receptive_field

SUITES: tuple[Suite, ...] = (
  hsa_ruler.SUITE,
  ruler.SUITE,
  babilong.SUITE,
  babilong.FORCED_SUITE,
  perplexity.SUITE,
  passkey.SUITE,
  gca.SUITE,
  mqar.SUITE,
  copying.SUITE,
  remembrance.SUITE,
  attention.SUITE,
)

__all__ = [
  "SUITES",
  "Asked",
  "FlagError",
  "Job",
  "Prefill",
  "ResultStore",
  "ResultsError",
  "RunInfo",
  "Session",
  "Settings",
  "Suite",
  "receptive_field",
  "write_comparison",
  "write_paired",
  "write_report",
]
