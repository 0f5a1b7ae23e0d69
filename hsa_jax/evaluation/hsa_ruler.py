"""Suite `hsa_ruler`: the token-level RULER tasks of RAMba and HiLS.

`s_niah` one needle, `mk_mq` six needles of which two are asked for, `vt` two
shuffled chains of three variables, `fwe` the three most frequent coded words.
The two published scores of VT are two tasks here, over the same samples: `vt`
wants all three names, `vt_last` what follows the last comma.
"""

import dataclasses

from hsa_jax.config import SourceConfig, Task
from hsa_jax.data.tokens.catalog import MK_MQ, VT
from hsa_jax.data.tokens.variables import after_last_comma
from hsa_jax.evaluation.session import Settings
from hsa_jax.evaluation.token_suite import (
  TokenSuite,
  Variant,
  View,
  whole_answer,
)

PROTOCOL = "hsa-ruler-v1"
# S-NIAH is older than that name. Results are kept under the name they were
# measured with, and the samples are the same to the bit.
S_NIAH_PROTOCOL = "teacher_forced_exact_match"


def _s_niah(settings: Settings) -> list[Variant]:
  return [
    Variant(
      SourceConfig(task=Task.NIAH, haystack=haystack, needle=settings.needle),
      S_NIAH_PROTOCOL,
      str(haystack),
      str(settings.needle),
      stream="",
    )
    for haystack in settings.haystacks
  ]


def _mk_mq(settings: Settings) -> list[Variant]:
  return in_haystacks(settings, MK_MQ, "digits", "mk_mq")


def _vt(settings: Settings) -> list[Variant]:
  return in_haystacks(settings, VT, "all", "vt")


def _vt_last(settings: Settings) -> list[Variant]:
  return in_haystacks(settings, VT, "last", "vt", after_last_comma)


def _fwe(settings: Settings) -> list[Variant]:
  del settings  # the coded words are the haystack
  return [Variant(SourceConfig(task=Task.FWE), PROTOCOL, "", "", "fwe")]


def in_haystacks(
  settings: Settings,
  source: SourceConfig,
  needle: str,
  stream: str,
  view: View = whole_answer,
  *,
  protocol: str = PROTOCOL,
) -> list[Variant]:
  """A variant for each haystack that the settings ask for."""
  return [
    Variant(
      dataclasses.replace(source, haystack=haystack),
      protocol,
      str(haystack),
      needle,
      stream,
      view,
    )
    for haystack in settings.haystacks
  ]


SUITE = TokenSuite(
  "hsa_ruler",
  "needles, keys, variable chains and frequent words, token level, teacher"
  " forced; s_niah alone unless --tasks names others",
  {
    "s_niah": _s_niah,
    "mk_mq": _mk_mq,
    "vt": _vt,
    "vt_last": _vt_last,
    "fwe": _fwe,
  },
  default=("s_niah",),
)
