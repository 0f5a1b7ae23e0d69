"""A model over sequences of any length: prefill, whole sequences, decoding."""

from hsa_jax.inference.caches import capacity_of, plan_context
from hsa_jax.inference.decode import Decoder, prefill_decoder
from hsa_jax.inference.generate import generate
from hsa_jax.inference.halo import HaloPrefill, halo_length, make_reader
from hsa_jax.inference.midway import Journal, Midway
from hsa_jax.inference.sampling import Sampling
from hsa_jax.inference.sequence import read_end, read_sequence
from hsa_jax.inference.stream import (
  Prefill,
  SegmentReader,
  Suffix,
  first_token,
  head,
  read_context,
  receptive_field,
  suffix_logits,
  tail_length,
)

__all__ = [
  "Decoder",
  "HaloPrefill",
  "Journal",
  "Midway",
  "Prefill",
  "Sampling",
  "SegmentReader",
  "Suffix",
  "capacity_of",
  "first_token",
  "generate",
  "halo_length",
  "head",
  "make_reader",
  "plan_context",
  "prefill_decoder",
  "read_context",
  "read_end",
  "read_sequence",
  "receptive_field",
  "suffix_logits",
  "tail_length",
]
