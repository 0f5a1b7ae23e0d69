"""Selection: visibility, ties, order, noise, limits, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hsa_jax.ops import reference, select
from hsa_jax.ops.chunking import num_visible_chunks


def inputs(length=9, chunks=5, heads=2, dim=3, seed=0):
  rng = np.random.default_rng(seed)
  query = jnp.asarray(rng.normal(size=(2, length, heads, dim)), jnp.float32)
  marks = jnp.asarray(rng.normal(size=(2, chunks, heads, dim)), jnp.float32)
  return query, marks


def test_visible_chunks_literal():
  """Chunks of 2: a token never sees its own chunk, not even at its end."""
  got = num_visible_chunks(jnp.arange(7), chunk_size=2)
  assert got.tolist() == [0, 0, 1, 1, 2, 2, 3]


def test_excluded_window_literal():
  """Chunk i needs i*2 <= t - 3: its first token lies outside the window."""
  got = num_visible_chunks(jnp.arange(8), chunk_size=2, exclude_window=3)
  assert got.tolist() == [0, 0, 0, 1, 1, 2, 2, 3]


@pytest.mark.parametrize("top_k", [1, 2, 5, 8])
def test_equals_reference(top_k):
  query, marks = inputs()
  visible = num_visible_chunks(jnp.arange(9), chunk_size=2)
  got = select.select_chunks(query, marks, num_visible=visible, top_k=top_k)
  expected = reference.select_chunks(
    query, marks, num_visible=visible, top_k=top_k
  )
  assert jnp.array_equal(got.index, expected.index)
  assert jnp.array_equal(got.valid, expected.valid)
  np.testing.assert_allclose(got.score, expected.score, atol=1e-6)


def test_ties_go_to_the_later_chunk_and_order_is_nearest_first():
  query, marks = inputs(length=1, chunks=6)
  same = jnp.ones_like(marks)
  got = select.select_chunks(query, same, num_visible=jnp.array([5]), top_k=3)
  assert got.index[0, 0, 0].tolist() == [4, 3, 2]


def test_invalid_slots_hold_zero_and_minus_infinity():
  query, marks = inputs()
  visible = jnp.minimum(jnp.arange(9), 2)
  got = select.select_chunks(query, marks, num_visible=visible, top_k=4)
  assert not bool(got.valid[:, 0].any())
  assert bool((got.index[~got.valid] == 0).all())
  assert bool(jnp.isneginf(got.score[~got.valid]).all())
  assert got.valid.sum(-1)[0, :, 0].tolist() == [0, 1] + [2] * 7


def test_limit_uses_the_best_slots_only():
  query, marks = inputs()
  visible = jnp.full(9, 5)
  two = select.select_chunks(query, marks, num_visible=visible, top_k=2)
  cut = select.select_chunks(
    query, marks, num_visible=visible, top_k=4, limit=jnp.int32(2)
  )
  assert jnp.array_equal(cut.index[..., :2], two.index)
  assert not bool(cut.valid[..., 2:].any())


def test_noise_changes_the_choice_but_not_the_scores():
  query, marks = inputs(length=40, chunks=9)
  visible = jnp.full(40, 9)
  clean = select.retrieval_scores(query, marks)
  noisy = select.select_chunks(
    query,
    marks,
    num_visible=visible,
    top_k=3,
    noise_key=jax.random.key(1),
  )
  quiet = select.select_chunks(query, marks, num_visible=visible, top_k=3)
  assert not jnp.array_equal(noisy.index, quiet.index)
  expected = jnp.take_along_axis(clean, noisy.index, axis=-1)
  np.testing.assert_array_equal(noisy.score, expected)


def test_only_selected_landmarks_get_gradient():
  query, marks = inputs(length=1, chunks=6)

  def loss(marks):
    got = select.select_chunks(
      query, marks, num_visible=jnp.array([6]), top_k=2
    )
    return jnp.sum(jnp.where(got.valid, got.score, 0.0) ** 2)

  chosen = select.select_chunks(
    query, marks, num_visible=jnp.array([6]), top_k=2
  ).index
  gradient = jnp.abs(jax.grad(loss)(marks)).sum(-1)
  for b in range(2):
    for g in range(2):
      hit = set(np.flatnonzero(np.asarray(gradient[b, :, g])))
      assert hit == set(chosen[b, 0, g].tolist())


def test_bfloat16_inputs_are_scored_in_float32():
  """T7: the same bfloat16 values chosen alike whatever dtype carries them."""
  query, marks = inputs(length=64, chunks=200, dim=32)
  half = query.astype(jnp.bfloat16), marks.astype(jnp.bfloat16)
  wide = tuple(x.astype(jnp.float32) for x in half)
  visible = jnp.full(64, 200)
  picks = [
    select.select_chunks(q, m, num_visible=visible, top_k=8).index
    for q, m in (half, wide)
  ]
  assert jnp.array_equal(*picks)


def test_top_k_below_one_is_an_error():
  query, marks = inputs()
  with pytest.raises(ValueError, match="top_k = 0"):
    select.select_chunks(query, marks, num_visible=jnp.zeros(9, int), top_k=0)


def test_no_chunks_at_all():
  query, marks = inputs()
  got = select.select_chunks(
    query, marks[:, :0], num_visible=jnp.zeros(9, jnp.int32), top_k=3
  )
  assert got.index.shape == (2, 9, 2, 3) and not bool(got.valid.any())


def test_repeat_selection_spreads_blocks():
  query, marks = inputs(length=3)
  found = select.select_chunks(
    query, marks, num_visible=jnp.array([1, 3, 5]), top_k=2
  )
  spread = select.repeat_selection(found, tokens=4, length=10)
  for t in range(10):
    assert jnp.array_equal(spread.index[:, t], found.index[:, t // 4])
