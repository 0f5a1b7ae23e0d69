"""Requests, and the slow twin of every answer: one plain forward pass."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import numpy as np

from hsa_jax.data.tokenizer import load_tokenizer
from hsa_jax.interop import HarnessModel, Reader, Ways
from tests.evaluation.helpers import MODEL, build_model

BYTES = load_tokenizer("byte")
SWA = dataclasses.replace(
  MODEL, hsa=dataclasses.replace(MODEL.hsa, num_groups=0)
)
SEGMENT = 64  # so that texts of hundreds of bytes are streamed


class Asked(NamedTuple):
  """Stands for an instance of the harness."""

  args: tuple


@functools.cache
def reader(cfg=MODEL, **ways) -> Reader:
  return Reader(build_model(cfg), Ways(**{"segment": SEGMENT, **ways}))


def harness_model(cfg=MODEL, tokenizer=BYTES, **ways) -> HarnessModel:
  return HarnessModel(reader(cfg, **ways), tokenizer)


def forget(*args) -> None:
  """A `Remember` that does nothing."""


def text(length: int, seed: int = 0) -> str:
  """Random letters; the last is no space, which would change sides."""
  letters = list("abcdefgh  .\n")
  rng = np.random.default_rng(seed)
  drawn = rng.integers(0, len(letters), length)
  return "".join(letters[i] for i in drawn[:-1]) + "h" * min(length, 1)


@jax.jit
def _log_probs(model, tokens):
  return jax.nn.log_softmax(model(tokens), axis=-1)


def log_probs(tokens, cfg=MODEL) -> np.ndarray:
  """Of the token after each one, `[T, V]`, by the whole forward pass."""
  room = 64 if len(tokens) <= 64 else 768  # few compilations
  row = np.zeros((1, room), np.int32)
  row[0, : len(tokens)] = tokens
  return np.asarray(_log_probs(build_model(cfg), row))[0, : len(tokens)]


def likelihood(context: str, continuation: str, cfg=MODEL):
  """What the harness must be told of bytes: every one given those before."""
  before = list(BYTES.encode(context)) or [BYTES.eos_id]
  after = list(BYTES.encode(continuation))
  known = log_probs([*before, *after[:-1]], cfg)[-len(after) :]
  total = sum(float(row[t]) for row, t in zip(known, after, strict=True))
  best = np.argmax(known[:, : BYTES.vocab_size], axis=-1).tolist()
  return total, best == after


def greedy(prompt: str, count: int, cfg=MODEL) -> str:
  """The most likely bytes after `prompt`, one forward pass for each."""
  tokens = list(BYTES.encode(prompt)) or [BYTES.eos_id]
  start = len(tokens)
  for _ in range(count):
    best = int(np.argmax(log_probs(tokens, cfg)[-1, : BYTES.vocab_size]))
    if best == BYTES.eos_id:
      break
    tokens.append(best)
  return BYTES.decode(tokens[start:])
