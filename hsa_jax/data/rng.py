"""Random streams that are disjoint by construction.

Philox is a bijection of (key, counter). The key holds the seed and the purpose,
the counter's upper words hold what is drawn (step, row, sample), and its lowest
word counts the draws. Two streams that differ in any of these never visit the
same state, so training can never redraw an evaluation sample.
"""

import zlib

import numpy as np

TRAIN = "train"
MIX = "train/mix"
EVAL = "eval"
_MASK = (1 << 64) - 1


def make_rng(seed: int, purpose: str, *ids: int) -> np.random.Generator:
  """The generator of one thing.

  Args:
    seed: of the run.
    purpose: name of the consumer; its CRC-32 is part of the key.
    *ids: at most three whole numbers in 0..2^64-1.
  """
  key = np.array([seed & _MASK, zlib.crc32(purpose.encode())], np.uint64)
  counter = np.array([0, *ids, *(0,) * (3 - len(ids))], np.uint64)
  return np.random.Generator(np.random.Philox(key=key, counter=counter))
