"""Layers of several kinds: which stands where, and what each of them does."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hsa_jax.config import (
  BlockForm,
  LayerConfig,
  Mixer,
  Norm,
  Position,
  Remat,
  RopeConfig,
  layers_of,
)
from hsa_jax.models.absolute import yarn_of
from hsa_jax.models.attention import Block, Pattern, depth_of
from hsa_jax.ops.cache import KvCache, write
from hsa_jax.parallel.sharding import named_leaves
from hsa_jax.types import Limits
from tests.models.helpers import (
  FULL,
  GLA,
  LOCAL,
  MAMBA,
  NOPE,
  STICK,
  assert_close,
  build,
  hidden_of,
  random_hidden,
  random_tokens,
  run,
  tiny,
)


def plain(**changes):
  """Without memory."""
  return tiny(hsa_num_groups=0, **changes)


def test_a_pattern_of_the_default_layer_is_no_pattern():
  """The same parameters under the same names, and so the same outputs."""
  old, new = build(tiny()), build(tiny(layers=(LOCAL, LOCAL)))
  assert named_leaves(old).keys() == named_leaves(new).keys()
  tokens = random_tokens(20)
  assert jnp.array_equal(run(old, tokens), run(new, tokens))


def test_one_kind_is_one_stack_with_the_names_of_windows():
  model = build(plain(layers=(FULL,)))
  names = named_leaves(build(plain())).keys()
  assert named_leaves(model).keys() == names
  assert depth_of(model.lower_blocks) == 4


def test_places_of_a_pattern():
  """Five layers of period two: three of the first kind, two of the other."""
  model = build(plain(num_lower_layers=3, layers=(LOCAL, NOPE)))
  assert isinstance(model.lower_blocks, Pattern)
  places = model.lower_blocks.places
  assert [depth_of(place) for place in places] == [3, 2]
  name = "lower_blocks.places.1.attention.query.kernel"
  assert named_leaves(model)[name].shape == (2, 16, 16)


def layer(blocks, i: int) -> Block:
  """The block at depth `i`."""
  places = list(blocks.places)
  place, row = places[i % len(places)], i // len(places)
  return jax.tree.map(lambda a: a[row], place)


@pytest.mark.parametrize("depth", [2, 3, 4, 7])
def test_layers_run_in_the_order_of_the_pattern(depth):
  cfg = plain(
    num_lower_layers=depth, num_upper_layers=0, layers=(LOCAL, NOPE, STICK)
  )
  model, tokens = build(cfg), random_tokens(15)

  @jax.jit
  def one_by_one(model, tokens):
    x = model.embedding(tokens)
    for i in range(depth):
      x, _ = layer(model.lower_blocks, i)(x, None, 0, Limits())
    return x

  assert_close(hidden_of(model, tokens), one_by_one(model, tokens))


def test_the_pattern_goes_on_above_the_memory():
  cfg = tiny(
    layers=(LOCAL, NOPE, STICK), num_lower_layers=2, num_upper_layers=4
  )
  kinds = [layer.mixer for layer in layers_of(cfg, 0, 6)]
  assert kinds == [Mixer.WINDOW, Mixer.FULL, Mixer.STICK_BREAKING] * 2
  groups = build(cfg).groups
  # Depths 2, 3 and 4, 5: stick-breaking and a window, then full and stick.
  mixers = [
    [type(p.attention).__name__ for p in group.window_blocks.places]
    for group in groups
  ]
  assert mixers == [
    ["StickBreakingAttention", "WindowAttention"],
    ["FullAttention", "StickBreakingAttention"],
  ]


def test_a_layer_has_its_own_window_norm_and_position():
  own = LayerConfig(window=3, qk_norm=False, position=Position.NONE)
  (layer,) = layers_of(plain(layers=(own,)), 0, 1)
  cfg = layer.cfg
  assert (cfg.window_size, cfg.qk_norm, cfg.position) == (3, False, "none")
  model = build(plain(layers=(LOCAL, own)))
  names = named_leaves(model)
  assert "lower_blocks.places.0.attention.query_norm.scale" in names
  assert "lower_blocks.places.1.attention.query_norm.scale" not in names


def test_a_parallel_block_reads_one_norm_twice():
  cfg = plain(block=BlockForm.PARALLEL, layers=(NOPE,))
  blocks, x = build(cfg).lower_blocks, random_hidden(9)
  assert not any("mlp_norm" in name for name in named_leaves(blocks))

  @jax.jit
  def both(blocks, x):
    block = jax.tree.map(lambda a: a[1], blocks)
    normed = block.attention_norm(x)
    read, _ = block.attention(normed, None, 0, Limits())
    return block(x, None, 0, Limits())[0], x + read + block.mlp(normed)

  assert_close(*both(blocks, x))


def test_what_a_logit_scale_scales():
  tokens = random_tokens(9)
  once, scaled = build(plain()), build(plain(logit_scale=0.25))
  want = 0.25 * run(once, tokens)
  assert_close(run(scaled, tokens), want, 1e-6)


def test_the_norm_of_the_model_is_that_of_blocks_and_head():
  """The memory keeps RMSNorm."""
  model = build(tiny(norm=Norm.LAYER))
  block, read = model.lower_blocks, model.groups[0].block
  kinds = [
    type(part).__name__
    for part in (
      block.attention_norm,
      block.mlp_norm,
      model.norm,
      read.read_norm,
      block.attention.query_norm,
    )
  ]
  assert kinds == ["LayerNorm"] * 3 + ["RMSNorm"] * 2
  assert named_leaves(model).keys() == named_leaves(build(tiny())).keys()


@pytest.mark.parametrize(
  "layers",
  [
    (FULL,),
    (STICK,),
    (LOCAL, NOPE, STICK),
    pytest.param((MAMBA, GLA), marks=pytest.mark.slow),
  ],
)
def test_remat_changes_no_gradient(layers):
  tokens = random_tokens(23, batch=2)

  def gradient(cfg):
    def loss(model):
      return jnp.sum(jnp.sin(model(tokens)))

    return jax.tree.leaves(jax.jit(jax.grad(loss))(build(cfg)))

  pairs = zip(
    gradient(plain(layers=layers)),
    gradient(plain(layers=layers, remat=Remat.BLOCK)),
    strict=True,
  )
  for a, b in pairs:
    assert_close(a, b, 2e-5)
    assert bool(jnp.isfinite(b).all())


@pytest.mark.parametrize(
  "layers", [(FULL,), (STICK,), (NOPE, LOCAL), (MAMBA,), (GLA,)]
)
def test_no_output_depends_on_a_later_token(layers):
  model, tokens = build(plain(layers=layers)), random_tokens(14)
  for position in (1, 6, 13):
    other = tokens.at[0, position].set((tokens[0, position] + 1) % 40)
    before, after = run(model, tokens), run(model, other)
    assert jnp.array_equal(before[:, :position], after[:, :position])
    assert float(jnp.abs(before - after)[:, position:].max()) > 1e-4


def last_output(cfg, x):
  model = build(cfg)

  @jax.jit
  def mixed(model, x):
    block = jax.tree.map(lambda a: a[0], model.lower_blocks)
    return block.attention(x, None, 0, Limits())[0][:, -1]

  return mixed(model, x)


@pytest.mark.parametrize(
  ("kind", "ordered"), [(NOPE, False), (FULL, True), (STICK, True)]
)
def test_order_counts_with_positions_only(kind, ordered):
  """Without positions full attention is a bag; stick-breaking never is."""
  x = random_hidden(9)
  order = jnp.array([3, 1, 7, 0, 5, 2, 6, 4, 8])
  cfg = plain(layers=(kind,))
  away = jnp.abs(last_output(cfg, x) - last_output(cfg, x[:, order])).max()
  assert (float(away) > 1e-3) == ordered


def test_a_full_layer_reaches_further_than_a_window():
  x = random_hidden(20)
  other = x.at[:, 10].add(1.0)  # the window ends at 14
  kinds = ((LOCAL, False), (NOPE, True), (STICK, True), (GLA, True))
  for kind, reaches in kinds:
    cfg = plain(layers=(kind,))
    away = jnp.abs(last_output(cfg, x) - last_output(cfg, other)).max()
    assert (float(away) > 1e-4) == reaches


def test_yarn_and_base_change_full_layers_only():
  x, rope = random_hidden(20), RopeConfig(factor=4.0, original_length=16)
  base = RopeConfig(theta=1e6)
  assert yarn_of(rope) is not None
  assert yarn_of(base) is None
  for kind, changes in ((FULL, True), (NOPE, False), (LOCAL, False)):
    cfg = plain(layers=(kind,))
    before = last_output(cfg, x)
    for setting in (rope, base):
      after = last_output(dataclasses.replace(cfg, rope=setting), x)
      assert (float(jnp.abs(after - before).max()) > 1e-4) == changes


def test_sixteen_bits():
  layers = (LOCAL, FULL, STICK, MAMBA, GLA)
  exact = run(build(plain(layers=layers)), random_tokens(23))
  cfg = plain(layers=layers, compute_dtype="bfloat16")
  logits = run(build(cfg), random_tokens(23))
  assert logits.dtype == jnp.float32
  assert_close(logits, exact, 0.1)


def test_states_need_a_capacity():
  model = build(plain(layers=(LOCAL, FULL)))
  with pytest.raises(ValueError, match="needs the tokens that it will have"):
    model.init_carry(1)
  window, full = model.init_carry(2, 9)
  assert window.keys.shape == (2, 2, 5, 2, 4)
  assert full.keys.shape == (2, 2, 9, 2, 4)


@pytest.mark.parametrize(
  ("start", "length"), [(0, 3), (4, 3), (6, 3), (7, 1), (5, 6), (0, 12), (8, 2)]
)
def test_a_cache_is_never_written_over(start, length):
  """Filling behind the end of the room is dropped, what is there stays."""
  room, new = np.arange(8.0), 100 + np.arange(float(length))
  want = room.copy()
  fits = min(length, len(room) - start)
  want[start : start + fits] = new[:fits]

  def shaped(x):
    return jnp.asarray(x)[None, :, None, None]

  got = write(shaped(room), shaped(new), jnp.int32(start))
  np.testing.assert_array_equal(got[0, :, 0, 0], want)
  cache = KvCache(shaped(room), shaped(room), jnp.int32(start))
  again = cache.extended(shaped(new), shaped(new))
  np.testing.assert_array_equal(again.values[0, :, 0, 0], want)
  assert int(again.length) == start
