"""Ranks of chunks in every home, against sorting all scores."""

import jax.numpy as jnp
import numpy as np
import pytest

from hsa_jax.memory import NO_RANK, RecordingMemory, rank_chunks
from hsa_jax.ops.select import retrieval_scores, select_chunks
from tests.memory.cases import BATCH, HEADS, TOKENS
from tests.memory.home_test import CHUNKS, HOMES, adversarial, fill, make_home

VISIBLE = np.array([0, 1, 2, 9, 30, 37, 100])
KINDS = ["random", "ties", "duplicated", "one_for_all"]


def naive(block, query, chunk, visible):
  """Sorts the visible chunks, best first and the later of equals first."""
  landmarks = jnp.asarray(block.landmarks)
  scores = np.asarray(retrieval_scores(jnp.asarray(query), landmarks))
  out = np.full((BATCH, TOKENS, HEADS), NO_RANK)
  for b, t, g in np.ndindex(out.shape):
    seen = range(min(visible[b, t], CHUNKS))
    order = sorted(seen, key=lambda c: (-scores[b, t, g, c], -c))
    if chunk[b, t] in order:
      out[b, t, g] = 1 + order.index(chunk[b, t])
  return out


def questions(seed: int):
  rng = np.random.default_rng(seed)
  visible = np.broadcast_to(VISIBLE, (BATCH, TOKENS))
  return rng.integers(-1, CHUNKS, (BATCH, TOKENS)), visible


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("home", HOMES)
def test_rank_is_the_place_in_a_sorted_list(home, kind, tmp_path):
  block, query = adversarial(kind)
  memory = fill(make_home(home, tmp_path), block)
  query = np.asarray(query)
  for seed in range(3):
    chunk, visible = questions(seed)
    got = rank_chunks(memory, query, chunk, visible, block=8)
    np.testing.assert_array_equal(got, naive(block, query, chunk, visible))


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_ranks_are_what_a_search_finds(kind, tmp_path):
  block, query = adversarial(kind)
  memory = RecordingMemory(fill(make_home("host", tmp_path), block))
  found = select_chunks(
    query, jnp.asarray(block.landmarks), num_visible=jnp.array(VISIBLE), top_k=4
  )
  _, visible = questions(0)
  for slot in range(4):
    for head in range(HEADS):
      chunk = np.asarray(found.index[:, :, head, slot])
      valid = np.asarray(found.valid[:, :, head, slot])
      got = rank_chunks(memory, np.asarray(query), chunk, visible)[..., head]
      assert (got[valid] <= 4).all() and (got[valid] >= 1).all()


def test_nothing_to_rank_reads_nothing(tmp_path):
  memory = make_home("host", tmp_path)  # empty: it has no landmarks to give
  query = np.zeros((BATCH, TOKENS, HEADS, 8), np.float32)
  chunk, visible = np.zeros((BATCH, TOKENS), int), np.full((BATCH, TOKENS), 9)
  assert (rank_chunks(memory, query, chunk, visible) == NO_RANK).all()
