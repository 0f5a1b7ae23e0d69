"""T5, T6, T7, T11 and the schedules: what each option changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hsa_jax.config import (
  Noise,
  Position,
  Remat,
  Residual,
  RetrievalHeads,
  Weighting,
)
from hsa_jax.models.hsa import HsaBlock, SequenceMemory
from hsa_jax.ops import select
from hsa_jax.types import Limits
from tests.models.helpers import (
  assert_close,
  build,
  encode,
  random_hidden,
  random_tokens,
  run,
  tiny,
)


def with_config(block: HsaBlock, cfg) -> HsaBlock:
  """The same parameters under another configuration."""
  copy = jax.tree.map(lambda x: x, block)
  copy.cfg = cfg
  copy.retrieval.cfg = cfg
  return copy


def test_residuals_differ_by_exactly_what_was_retrieved():
  """T5: standard - bypass = H(x)."""
  model = build(tiny())

  @jax.jit
  def outputs(model, x):
    block = model.groups[0].block
    standard = with_config(block, tiny(hsa_residual=Residual.STANDARD))
    memory = SequenceMemory(model.encode(x))
    both = [b(x, memory, 0, Limits())[0] for b in (standard, block)]
    chosen = block.choose(x, memory, 0)
    return both[0] - both[1], block.read(x, memory, 0, chosen)

  difference, retrieved = outputs(model, random_hidden(14))
  assert float(jnp.abs(retrieved).max()) > 0.1
  assert_close(difference, retrieved, 1e-5)


def turned(x, first: int, theta: float) -> np.ndarray:
  """`[B T N H]` as complex pairs, each turned by its position, float64."""
  half = x.shape[-1] // 2
  angle = np.outer(
    first + np.arange(x.shape[1]), theta ** -(np.arange(half) / half)
  )
  pairs = np.asarray(x, np.float64)
  pairs = pairs[..., :half] + 1j * pairs[..., half:]
  pairs = pairs * np.exp(1j * angle)[None, :, None]
  return np.concatenate([pairs.real, pairs.imag], axis=-1)


@pytest.mark.parametrize("position", [0, 12])
def test_positions_of_a_read_turn_its_queries_and_keys_and_nothing_else(
  position,
):
  plain = build(tiny())
  cfg = tiny(hsa_position=Position.ABSOLUTE_ROPE)
  x, size = random_hidden(14), cfg.hsa.chunk_size
  block = plain.groups[0].block

  def parts(model, block, position):
    chunks = jax.jit(lambda m, x: m.encode(x, position=position))(model, x)
    query = jax.jit(lambda b, x: b.read_query(x, position))(block, x)
    return chunks, query

  (bare, bare_query) = parts(plain, block, position)
  copy = jax.tree.map(lambda leaf: leaf, plain)
  copy.cfg = copy.encoder.cfg = cfg
  (chunks, query) = parts(copy, with_config(block, cfg), position)
  np.testing.assert_array_equal(chunks.landmarks, bare.landmarks)
  np.testing.assert_array_equal(chunks.values, bare.values)
  row = bare.keys.reshape(1, -1, *bare.keys.shape[3:])
  assert row.shape[1] == 14 // size * size
  want = turned(row, position, cfg.rope_theta).reshape(bare.keys.shape)
  np.testing.assert_allclose(chunks.keys, want, atol=1e-5)
  want = turned(bare_query, position, cfg.rope_theta)
  np.testing.assert_allclose(query, want, atol=1e-5)
  assert float(jnp.abs(query - bare_query).max()) > 0.1


def test_a_read_with_positions_depends_on_distances_alone():
  cfg = tiny(hsa_position=Position.ABSOLUTE_ROPE)
  model, x = build(cfg), random_hidden(14)

  @jax.jit
  def read(model, position):
    block = model.groups[0].block
    memory = SequenceMemory(model.encode(x, position=position))
    chosen = block.choose(x, memory, 0)
    return block.read(x, memory, position, chosen)

  here, there = read(model, 0), read(model, 1_000 * cfg.hsa.chunk_size)
  assert_close(there, here, 1e-4)
  assert float(jnp.abs(here).max()) > 0.1
  assert encode(model, random_hidden(3)).keys.shape[1] == 0


def test_tokens_without_memory_still_pass_the_mlp():
  model = build(tiny())

  @jax.jit
  def outputs(model, x):
    block = model.groups[0].block
    got, _ = block(x, SequenceMemory(model.encode(x)), 0, Limits())
    return got, x + block.mlp(block.mlp_norm(x))

  got, expected = outputs(model, random_hidden(3))
  assert_close(got, expected, 1e-5)


def test_blocks_of_tokens_retrieve_as_their_first():
  """T6: b tokens per retrieval = one per token with repeated queries."""
  stride = 3
  model = build(tiny(hsa_tokens_per_retrieval=stride))

  @jax.jit
  def selections(model, x):
    block = model.groups[0].block
    memory = SequenceMemory(model.encode(x))
    blocks = (block, with_config(block, tiny()))
    return [b.select(x, memory, 0) for b in blocks]

  shared, each = selections(model, random_hidden(14))
  for t in range(14):
    first = t - t % stride
    assert jnp.array_equal(shared.index[:, t], each.index[:, first])
    assert jnp.array_equal(shared.valid[:, t], each.valid[:, first])


@pytest.mark.parametrize("remat", [Remat.BLOCK, Remat.OFFLOAD])
@pytest.mark.parametrize("layers", [2, 6])  # unrolled; scanned
def test_remat_changes_no_gradient(remat, layers):
  """T7: the recomputed forward reads the very same chunks."""
  tokens = random_tokens(23, batch=2)

  def gradient(cfg):
    def loss(model):
      return jnp.sum(jnp.sin(model(tokens, noise_key=jax.random.key(3))))

    return jax.tree.leaves(jax.jit(jax.grad(loss))(build(cfg)))

  noisy = {"hsa_selection_noise": Noise.GUMBEL, "num_lower_layers": layers}
  plain = gradient(tiny(**noisy))
  again = gradient(tiny(remat=remat, **noisy))
  for a, b in zip(plain, again, strict=True):
    assert_close(a, b, 2e-5)


def test_noise_acts_in_training_only():
  model = build(tiny(hsa_selection_noise=Noise.GUMBEL))
  tokens = random_tokens(40)
  key = jax.random.key(3)
  quiet = run(model, tokens)
  noisy = run(model, tokens, noise_key=key)
  assert jnp.array_equal(quiet, run(model, tokens))
  assert float(jnp.abs(noisy - quiet).max()) > 1e-3
  silent = build(tiny())
  assert jnp.array_equal(
    run(silent, tokens), run(silent, tokens, noise_key=key)
  )


def test_schedule_of_top_k_equals_a_smaller_top_k():
  tokens = random_tokens(40)
  wide, narrow = build(tiny(hsa_top_k=4)), build(tiny(hsa_top_k=2))
  limited = run(wide, tokens, Limits(top_k=jnp.int32(2)))
  assert_close(limited, run(narrow, tokens), 1e-5)
  assert float(jnp.abs(limited - run(wide, tokens)).max()) > 1e-3


def test_schedule_of_the_window_equals_a_smaller_window():
  tokens = random_tokens(40)
  wide, narrow = build(tiny(window_size=12)), build(tiny(window_size=5))
  limited = run(wide, tokens, Limits(window=jnp.int32(5)))
  assert_close(limited, run(narrow, tokens), 1e-5)


def test_schedules_do_not_recompile():
  model = build(tiny())
  compiled = jax.jit(lambda t, k: model(t, limits=Limits(top_k=k)))
  for k in (1, 2):
    compiled(random_tokens(12), jnp.int32(k))
  assert compiled._cache_size() == 1


@pytest.mark.parametrize("weighting", list(Weighting))
def test_every_retriever_learns_from_the_loss(weighting):
  """Gradient reaches the retrieval query, except where mass discards it."""
  small = {"num_lower_layers": 1, "num_upper_layers": 1, "hsa_num_groups": 1}
  model = build(tiny(hsa_weighting=weighting, **small))
  tokens = random_tokens(30)
  gradient_of = jax.jit(jax.grad(lambda m: jnp.sum(jnp.sin(m(tokens)))))
  gradient = gradient_of(model)
  kernel = gradient.groups[0].block.retrieval.query.kernel[...]
  reached = float(jnp.abs(kernel).max()) > 0
  assert reached == (weighting is not Weighting.MASS)


def test_one_retrieval_head_serves_all_memory_heads():
  model = build(tiny(hsa_retrieval_heads=RetrievalHeads.SINGLE))
  x = random_hidden(14)
  block = encode(model, x)
  assert block.landmarks.shape == (1, 3, 1, 8)
  found = model.groups[0].block.select(x, SequenceMemory(block), 0)
  assert found.index.shape[2] == 2
  assert jnp.array_equal(found.index[:, :, 0], found.index[:, :, 1])


def test_landmarks_are_normalised_once_and_gains_differ_by_group():
  model = build(tiny(hsa_landmark_norm=True))
  marks = encode(model, 7 * random_hidden(14)).landmarks
  np.testing.assert_allclose(jnp.square(marks).mean(-1), 1.0, rtol=1e-3)


def test_compute_dtype_is_bfloat16_and_outputs_are_float32():
  model = build(tiny(compute_dtype="bfloat16"))
  tokens = random_tokens(23)
  logits = run(model, tokens)
  assert logits.dtype == jnp.float32
  assert encode(model, model.embedding(tokens)).keys.dtype == jnp.bfloat16
  exact = run(build(tiny()), tokens)
  assert_close(logits, exact, 0.1)


def test_gradients_are_finite_with_every_option_on():
  cfg = tiny(
    hsa_weighting=Weighting.SOFTMAX_DECAY,
    hsa_sink=1,
    hsa_landmark_norm=True,
    hsa_encoder_prenorm=True,
    hsa_selection_noise=Noise.GUMBEL,
    hsa_block_window=True,
    compute_dtype="bfloat16",
  )
  tokens = random_tokens(23)
  model = build(cfg)
  key = jax.random.key(0)

  def loss(model):
    return jnp.mean(model(tokens, noise_key=key) ** 2)

  for leaf in jax.tree.leaves(jax.jit(jax.grad(loss))(model)):
    assert bool(jnp.isfinite(leaf).all())


def test_selection_is_the_same_with_float32_scores_of_any_dtype():
  model = build(tiny(compute_dtype="bfloat16"))
  x = random_hidden(40).astype(jnp.bfloat16)
  block = encode(model, x)
  query = model.groups[0].block.retrieval.make_query(x)
  assert query.dtype == jnp.float32
  wide = block.landmarks.astype(jnp.float32)
  visible = jnp.arange(40) // 4
  picks = [
    select.select_chunks(query, marks, num_visible=visible, top_k=2).index
    for marks in (block.landmarks, wide)
  ]
  assert jnp.array_equal(*picks)
