"""The segment of a prefill is whole chunks."""

import dataclasses

import pytest

from hsa_jax.cli.flags import whole_chunks
from hsa_jax.config import ModelConfig
from hsa_jax.evaluation import FlagError


def model(chunk_size: int, num_groups: int = 1) -> ModelConfig:
  cfg = ModelConfig()
  hsa = dataclasses.replace(
    cfg.hsa, chunk_size=chunk_size, num_groups=num_groups
  )
  return dataclasses.replace(cfg, hsa=hsa)


@pytest.mark.parametrize(
  ("segment", "chunk", "tokens"),
  [(4096, 64, 4096), (4096, 63, 4095), (4096, 15, 4095), (30, 15, 30)],
)
def test_the_default_is_cut_down_and_others_are_kept(segment, chunk, tokens):
  assert whole_chunks(segment, model(chunk), default=4096) == tokens


def test_what_was_asked_for_is_refused_with_the_nearest():
  message = "must be a multiple of the chunk size 63; nearest: 126"
  with pytest.raises(FlagError, match=message):
    whole_chunks(100, model(63), default=4096)
  with pytest.raises(FlagError, match="nearest: 5000"):
    whole_chunks(4096, model(5000), default=4096)
  assert whole_chunks(100, model(63, num_groups=0), default=4096) == 100
