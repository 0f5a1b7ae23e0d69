"""Suite `copying`: a span, scattered ids, an induction head, in random ids.

Token level and teacher forced. A model with memory must find the span by the
marker before it, or, in selective copying, by what the ids are.
"""

from collections.abc import Callable

from hsa_jax.config import Haystack, SourceConfig, Task
from hsa_jax.data.tokens.copying import SIZES
from hsa_jax.evaluation.session import Settings
from hsa_jax.evaluation.token_suite import TokenSuite, Variant

PROTOCOL = "copying-v1"


def _variants_of(task: Task) -> Callable[[Settings], list[Variant]]:
  def variants(settings: Settings) -> list[Variant]:
    del settings  # the haystack is random ids
    source = SourceConfig(task=task, haystack=Haystack.RANDOM)
    needle = f"{SIZES[task]}_ids"
    return [Variant(source, PROTOCOL, "random", needle, str(task))]

  return variants


SUITE = TokenSuite(
  "copying",
  "ids to be said again: a span, scattered ones, one after a marker",
  {str(task): _variants_of(task) for task in SIZES},
)
