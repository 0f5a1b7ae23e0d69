"""Strict settings for every test.

Warnings are errors (pyproject.toml), ranks never promote silently, and the
shapes written on the functions of `ops` and `models` are checked at each call.
"""

import gc
import os
import pathlib

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jaxtyping
import pytest
from absl import flags

# grain reads absl flags, which pytest never parses.
flags.FLAGS.mark_as_parsed()

jax.config.update("jax_numpy_rank_promotion", "raise")

# Stays installed for the whole session: it must precede the first import. The
# numeric tower lets an int stand where a float is asked for.
jaxtyping.install_import_hook(
  ["hsa_jax.ops", "hsa_jax.models"],
  "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)

MAPPED = pathlib.Path("/proc/self/maps")
MOST_MAPPED = 20_000  # Linux allows 65,530 regions, and XLA dies beyond


@pytest.fixture(autouse=True, scope="module")
def few_programs():
  """Drops compiled programs before they use up the regions of memory.

  Each takes several, and all are kept until they are told to go.
  """
  yield
  if MAPPED.exists() and MAPPED.read_bytes().count(b"\n") > MOST_MAPPED:
    jax.clear_caches()
    gc.collect()
