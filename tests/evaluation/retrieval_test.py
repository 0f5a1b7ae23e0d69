"""What a follower says of inserted landmarks, which retrieve for a chunk."""

import dataclasses

import jax
import numpy as np
import pytest

from hsa_jax.evaluation.retrieval import Follower
from hsa_jax.memory import Detail, HostMemory, RecordingMemory

from .helpers import LANDMARKS, build_model, random_tokens

LENGTH, CHUNK = 23, 4
TOKENS = np.array([0, 3, 4, 7, 8, 9, 12, 13, 19, 22])
EACH = dataclasses.replace(
  LANDMARKS,
  hsa=dataclasses.replace(
    LANDMARKS.hsa, tokens_per_retrieval=1, groups_per_retrieval=1
  ),
)


@pytest.fixture(scope="module", params=[LANDMARKS, EACH], ids=["ahead", "each"])
def passes(request):
  """A function that reads both sequences in pieces and is told of each."""
  cfg = request.param
  model, tokens = build_model(cfg), random_tokens((2, LENGTH))
  lower = jax.jit(lambda m, x: m.lower(x, m.init_carry(2, LENGTH)))
  hidden, _ = lower(model, tokens)
  memory = HostMemory(LENGTH // CHUNK).append(model.encode(hidden))

  def read(cuts):
    recorder = RecordingMemory(memory, Detail.QUERIES_AND_WEIGHTS)
    follower = Follower(recorder, [TOKENS] * 2, cfg=cfg)
    carry, record = model.init_upper_carry(2), []
    for start, stop in zip([0, *cuts], [*cuts, LENGTH], strict=True):
      reuse = model.num_reused(start, stop - start)
      _, carry = model.upper(
        hidden[:, start:stop], recorder, carry, position=start, reuse=reuse
      )
      record.append((list(recorder.searches), list(recorder.reads)))
      follower.take(start, stop, reuse=reuse)
    return follower.traces(), record

  return cfg, read


def test_each_token_is_told_what_served_it(passes):
  """From one search and one read of the whole sequence, by their rows."""
  cfg, read = passes
  traces, ((searches, reads),) = read([])
  stream = TOKENS + TOKENS // CHUNK
  ahead = cfg.hsa.tokens_per_retrieval > 1
  asked = TOKENS // CHUNK - 1 if ahead else stream
  assert len(searches) == (1 if ahead else 2) and len(reads) == 2
  for sample, groups in enumerate(traces):
    for group, trace in enumerate(groups):
      found = searches[group // cfg.hsa.groups_per_retrieval]
      weights = reads[group].weights[sample, stream]
      np.testing.assert_array_equal(trace.weights, weights)
      for i, row in enumerate(asked):
        if row < 0:
          assert not trace.valid[i].any() and trace.num_visible[i] == 0
          continue
        chosen = found.selection
        np.testing.assert_array_equal(trace.index[i], chosen.index[sample, row])
        np.testing.assert_array_equal(trace.valid[i], chosen.valid[sample, row])
        np.testing.assert_array_equal(trace.query[i], found.query[sample, row])
        assert trace.num_visible[i] == (row if ahead else TOKENS[i] // CHUNK)


def test_pieces_tell_the_same(passes):
  _, read = passes
  whole, _ = read([])
  pieces, _ = read([2, 3, 4, 10, 16, 17])
  for one, other in zip(whole, pieces, strict=True):
    for a, b in zip(one, other, strict=True):
      np.testing.assert_array_equal(a.index, b.index)
      np.testing.assert_array_equal(a.valid, b.valid)
      np.testing.assert_allclose(a.query, b.query, atol=1e-4)
      np.testing.assert_allclose(a.weights, b.weights, atol=1e-4)
