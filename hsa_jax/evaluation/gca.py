"""Suite `gca`: random-id needles of GCA, scored as published and in full.

`gca_passkey`, `gca_keys` and `gca_hops` score the first id of each name, at an
answer that begins with the second token of a chunk: the rule of the reference,
under which the landmark before it has seen the question. With `_all` every id
counts and the answer stands wherever it falls, which is the same event as
greedy decoding writing it.
"""

from collections.abc import Callable

from hsa_jax.config import SourceConfig, Task
from hsa_jax.data.tokens.catalog import GCA_HOPS, GCA_KEYS
from hsa_jax.data.tokens.gca import first_of_name, first_of_passkey
from hsa_jax.evaluation.hsa_ruler import in_haystacks
from hsa_jax.evaluation.session import Settings
from hsa_jax.evaluation.token_suite import TokenSuite, Variant, View

PROTOCOL = "gca-v1"


def _first(
  source: SourceConfig, view: View
) -> Callable[[Settings], list[Variant]]:
  def variants(settings: Settings) -> list[Variant]:
    found = in_haystacks(
      settings, source, "first_ids", str(source.task), view, protocol=PROTOCOL
    )
    return [variant._replace(aligned=True) for variant in found]

  return variants


def _all(source: SourceConfig) -> Callable[[Settings], list[Variant]]:
  return lambda settings: in_haystacks(
    settings, source, "all_ids", str(source.task), protocol=PROTOCOL
  )


PASSKEY = SourceConfig(task=Task.GCA_PASSKEY)
SUITE = TokenSuite(
  "gca",
  "needles of random ids as GCA has them: passkey, six keys, two hops; the"
  " first ids aligned to a chunk, or (_all) every id anywhere",
  {
    "gca_passkey": _first(PASSKEY, first_of_passkey),
    "gca_passkey_all": _all(PASSKEY),
    "gca_keys": _first(GCA_KEYS, first_of_name),
    "gca_keys_all": _all(GCA_KEYS),
    "gca_hops": _first(GCA_HOPS, first_of_name),
    "gca_hops_all": _all(GCA_HOPS),
  },
)
