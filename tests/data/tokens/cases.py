"""Every kind of sample, drawn from small haystacks."""

import numpy as np

from hsa_jax.config import Haystack, Needle, SourceConfig, Task
from hsa_jax.data.rng import make_rng
from hsa_jax.data.tokenizer import load_tokenizer
from hsa_jax.data.tokens.catalog import GCA_HOPS, GCA_KEYS, make_task
from hsa_jax.data.tokens.layout import evaluation_sample
from hsa_jax.data.tokens.rings import make_haystacks

TOKENIZER = load_tokenizer("byte")
RANDOM = Haystack.RANDOM


def make_text(size: int, seed: int) -> str:
  """`size` random lower-case letters and spaces."""
  rng = np.random.default_rng(seed)
  letters = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz   ", np.uint8)
  return letters[rng.integers(0, len(letters), size)].tobytes().decode()


HAYSTACKS = make_haystacks(
  TOKENIZER.encode(make_text(5_000, 1)).astype(np.uint16), TOKENIZER
)
SINGLE = SourceConfig(task=Task.NIAH)
NIAH_SOURCES = [
  SINGLE,
  SourceConfig(task=Task.NIAH, haystack=Haystack.NOISE),
  SourceConfig(task=Task.NIAH, needle=Needle.IDS),
  SourceConfig(task=Task.NIAH, num_needles=4, num_questions=2),
  SourceConfig(
    task=Task.NIAH,
    haystack=Haystack.NOISE,
    needle=Needle.IDS,
    num_needles=3,
    num_questions=3,
  ),
]
MK_MQ = SourceConfig(task=Task.MK_MQ, num_needles=6, num_questions=2)
VT = SourceConfig(task=Task.VT, num_needles=6)
FWE = SourceConfig(task=Task.FWE)
PASSKEY = SourceConfig(task=Task.PASSKEY, haystack=Haystack.NOISE)
GCA_PASSKEY = SourceConfig(task=Task.GCA_PASSKEY)
MQAR = SourceConfig(
  task=Task.MQAR, haystack=RANDOM, num_needles=16, num_questions=8
)
COPIES = [
  SourceConfig(task=task, haystack=RANDOM)
  for task in (Task.COPY_SPAN, Task.SELECTIVE_COPY, Task.INDUCTION)
]
ALL = [
  *NIAH_SOURCES,
  MK_MQ,
  SourceConfig(task=Task.MK_MQ, num_needles=4, num_questions=4),
  VT,
  SourceConfig(
    task=Task.VT, haystack=Haystack.NOISE, num_needles=6, num_questions=2
  ),
  SourceConfig(task=Task.VT, num_needles=4, num_questions=3, chain_length=1),
  FWE,
  PASSKEY,
  GCA_PASSKEY,
  GCA_KEYS,
  SourceConfig(task=Task.GCA_MULTI_KEY, num_needles=4, num_questions=4),
  GCA_HOPS,
  SourceConfig(
    task=Task.GCA_HOPS, num_needles=6, num_questions=2, chain_length=3
  ),
  MQAR,
  *COPIES,
]


def name_of(source: SourceConfig) -> str:
  """For the ids of parametrised tests."""
  counts = f"{source.num_needles}-{source.num_questions}"
  return f"{source.task}-{source.haystack}-{source.needle}-{counts}"


def draw(source, seed=0, length=1_500, tokenizer=TOKENIZER, **kwargs):
  """One sample from a stream of its own."""
  task = make_task(source, tokenizer)
  return task.draw(make_rng(seed, "test"), HAYSTACKS, length=length, **kwargs)


def evaluate(source, sample, length, num_samples=10, seed=3, stream="x"):
  """One sample of an evaluation."""
  return evaluation_sample(
    make_task(source, TOKENIZER),
    HAYSTACKS,
    stream=stream,
    seed=seed,
    sample=sample,
    num_samples=num_samples,
    length=length,
  )
