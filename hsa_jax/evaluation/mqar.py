"""Suite `mqar`: multi-query associative recall of single ids (Zoology).

Sixteen pairs, all sixteen keys asked for once more; a sample is correct iff
every value is.
"""

from hsa_jax.config import Haystack, SourceConfig, Task
from hsa_jax.evaluation.session import Settings
from hsa_jax.evaluation.token_suite import TokenSuite, Variant

PROTOCOL = "mqar-v1"
PAIRS = 16


def _mqar(settings: Settings) -> list[Variant]:
  del settings  # the haystack is random ids
  source = SourceConfig(
    task=Task.MQAR,
    haystack=Haystack.RANDOM,
    num_needles=PAIRS,
    num_questions=PAIRS,
  )
  return [Variant(source, PROTOCOL, "random", f"{PAIRS}_pairs", "mqar")]


SUITE = TokenSuite(
  "mqar",
  "values of sixteen keys among random ids, token level, teacher forced",
  {"mqar": _mqar},
)
