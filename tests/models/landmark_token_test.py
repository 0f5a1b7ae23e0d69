"""Landmark tokens inside the stream: GCA/DRT (arXiv 2410.01651).

Nobody outside sees them: ids in, logits aligned with ids out, any length, any
split. What a chunk reads is compared with loops in NumPy.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hsa_jax.config import Landmark
from hsa_jax.inference import tail_length
from hsa_jax.models.hsa import SequenceMemory
from hsa_jax.models.marks import Marks
from hsa_jax.types import ChunkBlock
from tests.models.helpers import (
  DRT,
  assert_close,
  build,
  encode,
  hidden_of,
  lower_stretch,
  random_tokens,
  run,
  stretches,
  tiny,
  upper_stretch,
)

LENGTH = 23
CASES = {
  "landmarks ask for the chunk behind them": DRT,
  "every token asks": tiny(hsa_landmark=Landmark.TOKEN),
  "layers above each read": dataclasses.replace(
    DRT,
    num_upper_layers=2,
    hsa=dataclasses.replace(
      DRT.hsa, num_groups=2, groups_per_retrieval=1, block_window=False
    ),
  ),
}


@pytest.mark.parametrize("first", range(4))
@pytest.mark.parametrize("length", [1, 3, 4, 9])
def test_marks_stand_behind_every_chunk(length, first):
  """`insert` against a loop, and the ways back."""
  x = jax.random.normal(jax.random.key(0), (2, length, 3))
  mark = jnp.full((3,), 7.0)
  marks = Marks(length, min(first, length), 4)
  rows = []
  for i in range(length):
    rows.append(x[:, i])
    if i % 4 == first:
      rows.append(jnp.broadcast_to(mark, (2, 3)))
  stream = marks.insert(x, mark)
  np.testing.assert_array_equal(stream, jnp.stack(rows, axis=1))
  assert marks.rows == len(rows)
  np.testing.assert_array_equal(marks.drop(stream), x)
  packed = marks.pack(stream)
  assert packed.shape == (2, length, 6)
  np.testing.assert_array_equal(marks.unpack(packed), stream)
  real = [int(marks.rows_of(n)) for n in range(1, length + 1)]
  assert real == [
    n + sum(i % 4 == first for i in range(n)) for n in range(1, length + 1)
  ]


@pytest.mark.parametrize(
  "name",
  [
    name if case is DRT else pytest.param(name, marks=pytest.mark.slow)
    for name, case in CASES.items()
  ],
)
def test_splits_give_the_answer_of_the_whole(name):
  """Both decoders in the same pieces: one by one, and of uneven lengths."""
  model, tokens = build(CASES[name]), random_tokens(14)
  want = hidden_of(model, tokens)
  for cuts in (list(range(1, 14)), [3, 4, 10]):
    assert_close(stretches(model, tokens, cuts), want, 2e-5)


@pytest.mark.parametrize(
  "cut",
  [
    1,
    4,
    *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 3, 5, 6, 7, 8)),
  ],
)
def test_every_split_point(cut):
  model, tokens = build(DRT), random_tokens(9, batch=2)
  got = stretches(model, tokens, [cut])
  assert_close(got, hidden_of(model, tokens), 2e-5)


def gca(params, x, u, landmarks, keys, values):
  """GCA as its paper has it, in loops; row p of `x` and `u` is of the stream.

  The landmark in the last row of chunk c asks for the rows of chunk c + 1.
  """
  hsa, dim = DRT.hsa, DRT.head_dim
  size, out = hsa.chunk_size + 1, np.zeros_like(u)
  group = DRT.num_heads // hsa.num_memory_heads

  def rms(row, gain):
    return row / np.sqrt(np.mean(row**2) + DRT.norm_eps) * gain

  for p in range(size, len(u)):
    asking = p // size - 1
    query = rms(x[asking * size + size - 1], params["ask"])
    scores = landmarks[:asking] @ query / np.sqrt(len(query))
    best = np.argsort(-scores)[: hsa.top_k]
    if not len(best):
      continue
    share = np.exp(scores[best] - scores[best].max())
    share /= share.sum()
    ask = rms(u[p], params["norm"]) @ params["query"]
    read = np.zeros((DRT.num_heads, dim))
    for head in range(DRT.num_heads):
      own = ask[head * dim : (head + 1) * dim]
      for weight, chunk in zip(share, best, strict=True):
        # The landmark's slot: a key of zeros with a value of zeros.
        k = np.vstack([keys[chunk, :, head // group], np.zeros(dim)])
        v = np.vstack([values[chunk, :, head // group], np.zeros(dim)])
        mass = np.exp(k @ own / np.sqrt(dim))
        read[head] += weight * (mass / mass.sum()) @ v
    out[p] = read.reshape(-1) @ params["out"]
  return out


def test_the_read_and_its_gradient_are_those_of_loops():
  """Forward, and derivatives along random directions by differences."""
  rng = np.random.default_rng(0)
  block = build(DRT).groups[0].block
  rows, chunks = 5 * 5 + 3, 5
  params = {
    "ask": block.retrieval.norm.scale[...],
    "norm": block.read_norm.scale[...],
    "query": block.query.kernel[...],
    "out": block.out.kernel[...],
  }
  params = {k: np.asarray(v, np.float64) for k, v in params.items()}
  shapes = [(rows, 16), (rows, 16), (chunks, 16), *[(chunks, 4, 2, 4)] * 2]
  given = [rng.normal(size=shape) for shape in shapes]

  @jax.jit
  def read(x, u, landmarks, keys, values):
    chunk = ChunkBlock(landmarks[None, :, None], keys[None], values[None])
    memory = SequenceMemory(chunk, aligned=True)
    chosen = block.choose(x[None], memory, 0)
    return block.read(u[None], memory, 0, chosen)[0]

  narrow = [jnp.asarray(a, jnp.float32) for a in given]
  want = gca(params, *given)
  assert not want[:10].any() and (np.abs(want[10:]).max(axis=1) > 1e-3).all()
  np.testing.assert_allclose(read(*narrow), want, rtol=0, atol=2e-5)
  weigh = rng.normal(size=want.shape)
  gradients = jax.jit(
    jax.grad(lambda *a: jnp.sum(read(*a) * weigh), argnums=range(5))
  )(*narrow)
  for i, gradient in enumerate(gradients):
    way, ends = rng.normal(size=given[i].shape), []
    for step in (1e-5, -1e-5):
      moved = [*given[:i], given[i] + step * way, *given[i + 1 :]]
      ends.append(np.sum(gca(params, *moved) * weigh))
    slope = (ends[0] - ends[1]) / 2e-5
    assert abs(slope) > 1e-3
    np.testing.assert_allclose(np.sum(gradient * way), slope, rtol=2e-3)


def test_chunks_are_read_behind_the_next_one():
  """Chunk c serves the tokens of chunk c + 2 on, and nothing earlier."""
  cfg = dataclasses.replace(DRT, num_lower_layers=0, window_size=1)
  model, tokens = build(cfg), random_tokens(16)
  other = tokens.at[0, 1].set((tokens[0, 1] + 1) % 40)
  changed = jnp.abs(run(model, tokens) - run(model, other))[0].max(axis=1) > 0
  assert changed.tolist() == [i == 1 or i >= 8 for i in range(16)]


@pytest.mark.parametrize("outputs", [1, 6])
def test_a_suffix_determines_the_last_outputs(outputs):
  """Landmarks before it asked for its first chunk, in both retrievals."""
  cfg = dataclasses.replace(DRT, window_size=2)
  model, length = build(cfg), 47
  tokens = random_tokens(length)
  hidden, _ = lower_stretch(model, tokens, model.init_carry(1), 0, reuse=3)
  start = length - tail_length(model, outputs, length)
  assert 0 < start < length - outputs and start % 4 == 0
  carry = model.init_upper_carry(1)
  got, _ = upper_stretch(
    model, hidden[:, start:], encode(model, hidden), carry, start, reuse=3
  )
  want = hidden_of(model, tokens)
  assert_close(got[:, -outputs:], want[:, -outputs:], 2e-5)
  assert float(jnp.abs(got - want[:, start:]).max()) > 1e-3


def test_a_retrieval_shared_by_tokens_belongs_to_the_suffix():
  """The first token of a block asked the second group from states that a
  suffix of windows alone would not have."""
  cfg = tiny(hsa_tokens_per_retrieval=8, window_size=2)
  model, length = build(cfg), 46
  tokens = random_tokens(length)
  hidden, _ = lower_stretch(model, tokens, model.init_carry(1), 0, reuse=0)
  start = length - tail_length(model, 1, length)
  chunks, carry = encode(model, hidden), model.init_upper_carry(1)

  def last(start):
    suffix = hidden[:, start:]
    out, _ = upper_stretch(model, suffix, chunks, carry, start, reuse=0)
    return out[:, -1:]

  want = hidden_of(model, tokens)[:, -1:]
  assert 0 < start < 40
  assert_close(last(start), want, 2e-5)
  assert float(jnp.abs(last(40) - want).max()) > 1e-4
