"""Training from other initial states: what a step takes, keeps, and resumes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from hsa_jax.config import (
  GlaConfig,
  InitialState,
  InitialStateConfig,
  LayerConfig,
  Mamba2Config,
  MeshConfig,
  Mixer,
  Mlp,
  StageConfig,
)
from hsa_jax.data.pipeline import Batch
from hsa_jax.models import LanguageModel
from hsa_jax.parallel import make_mesh
from hsa_jax.training import initial, loop
from hsa_jax.training.step import Totals, accumulate, batch_loss
from hsa_jax.types import Limits
from tests.training.helpers import VOCAB, losses, make_config, make_inputs

ROWS, LENGTH = 4, 16
MAMBA = LayerConfig(mixer=Mixer.MAMBA2, mlp=Mlp.NONE)
LAYERS = (MAMBA, LayerConfig(mlp=Mlp.NONE), LayerConfig(mixer=Mixer.GLA))
ALONE = (LayerConfig(mixer=Mixer.GLA, mlp=Mlp.NONE),)


def config(mode, *, layers=ALONE, steps=6, streams=1, **own):
  """One stage of one kind of rows; recurrent layers without a memory."""
  cfg = make_config()
  sizes = {}
  if MAMBA in layers:
    sizes["mamba2"] = Mamba2Config(head_dim=8, state_dim=4, chunk_size=8)
  if any(layer.mixer is Mixer.GLA for layer in layers):
    sizes["gla"] = GlaConfig(num_heads=2, gate_rank=2, chunk_size=8)
  model = dataclasses.replace(
    cfg.model,
    num_lower_layers=len(layers),
    num_upper_layers=0,
    init_scale=0.3,
    layers=layers,
    hsa=dataclasses.replace(cfg.model.hsa, num_groups=0),
    **sizes,
  )
  stage = StageConfig("rows", steps, LENGTH, ROWS, stream_steps=streams)
  state = InitialStateConfig(mode=mode, **own)
  return dataclasses.replace(
    cfg,
    model=model,
    data=dataclasses.replace(cfg.data, stages=(stage,)),
    train=dataclasses.replace(cfg.train, initial_state=state, seed=3),
  )


@functools.cache
def build(cfg):
  return jax.jit(lambda: LanguageModel(cfg.model, rngs=nnx.Rngs(0)))()


def batch_of(tokens) -> Batch:
  ones = jnp.ones((tokens.shape[0], tokens.shape[1] - 1))
  return Batch(tokens[:, :-1], tokens[:, 1:], ones, 0 * ones)


def tokens_of(length, seed=0):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.integers(0, VOCAB, (ROWS, length)), jnp.int32)


@functools.cache
def compiled_begin(cfg):
  model = build(cfg)
  return jax.jit(
    lambda kept, step: initial.begin(cfg, kept, model, step, rows=ROWS)
  )


def begin(cfg, kept, step):
  return compiled_begin(cfg)(kept, jnp.asarray(step, jnp.int32))


def random_like(tree, seed=5):
  leaves, structure = jax.tree.flatten(tree)
  rng = np.random.default_rng(seed)
  drawn = [jnp.asarray(rng.normal(size=x.shape), x.dtype) for x in leaves]
  return jax.tree.unflatten(structure, drawn)


def test_zeros_are_nothing_at_all():
  cfg = config(InitialState.ZERO)
  assert initial.empty_kept(cfg)(build(cfg)) is None
  assert initial.begin(cfg, None, build(cfg), 0, rows=ROWS) is None
  assert initial.keep(cfg, None, None) is None


def test_states_go_from_step_to_step_as_through_one_long_row():
  """Two steps of `tbtt` are the streamed forward; gradients stop between."""
  cfg = config(InitialState.TBTT, layers=LAYERS[::2], streams=8)
  model, tokens = build(cfg), tokens_of(2 * LENGTH + 1)
  halves = [batch_of(tokens[:, i * LENGTH :][:, : LENGTH + 1]) for i in (0, 1)]
  totals = Totals(jnp.float32(ROWS * LENGTH), jnp.float32(1))

  @jax.jit
  def step(model, batch, kept, number):
    states = initial.begin(cfg, kept, model, number, rows=ROWS)
    loss = functools.partial(
      batch_loss, totals=totals, answer_weight=0.0, limits=Limits()
    )
    grad = jax.value_and_grad(loss, has_aux=True)
    (value, (_, after)), grads = grad(model, batch, None, states)
    return value, grads, initial.keep(cfg, kept, after)

  @jax.jit
  def streamed(model, halves):
    def loss(model):
      carry, values = model.init_carry(ROWS), []
      for batch in halves:
        carry = jax.lax.stop_gradient(carry)
        hidden, carry = model.lower(batch.tokens, carry)
        logits = jax.nn.log_softmax(model.head(hidden))
        picked = jnp.take_along_axis(logits, batch.targets[..., None], -1)
        values.append(-jnp.mean(picked))
      return values[1], values

    return jax.value_and_grad(loss, has_aux=True)(model)

  kept = initial.empty_kept(cfg)(model)
  first, _, kept = step(model, halves[0], kept, jnp.int32(0))
  assert float(jnp.abs(jax.tree.leaves(kept)[0]).max()) > 0.01
  second, grads, _ = step(model, halves[1], kept, jnp.int32(1))
  (_, want), want_grads = streamed(model, halves)
  # Row 1 of 4 begins anew every 8 steps, 2 steps before row 0: not here.
  np.testing.assert_allclose([first, second], want, rtol=1e-6)
  pairs = zip(jax.tree.leaves(grads), jax.tree.leaves(want_grads), strict=True)
  for got, expected in pairs:
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)


def test_rows_of_tbtt_begin_anew_where_their_stream_does():
  cfg = config(InitialState.TBTT, streams=4, steps=12)
  kept = random_like(initial.empty_kept(cfg)(build(cfg)))
  for step in range(9):
    memory = begin(cfg, kept, step).lower.memory
    began = [not bool(jnp.any(row)) for row in memory]
    want = [step == 0 or (step + row) % 4 == 0 for row in range(ROWS)]
    assert began == want, step


def test_passed_states_are_those_of_the_same_row():
  cfg = config(InitialState.STATE_PASSING)
  kept = random_like(initial.empty_kept(cfg)(build(cfg)))
  got = begin(cfg, kept, 5)
  assert jnp.array_equal(got.lower.memory, kept.states.lower.memory)


def test_some_rows_begin_with_zeros_and_at_times_all():
  cfg = config(InitialState.STATE_PASSING, probability=0.5, reset_every=3)
  kept = random_like(initial.empty_kept(cfg)(build(cfg)))
  shares = []
  for step in range(30):
    memory = np.asarray(begin(cfg, kept, step).lower.memory)
    kept_rows = memory.reshape(ROWS, -1).any(axis=1)
    assert not (step % 3 == 0 and kept_rows.any())
    shares.append(kept_rows.mean())
  share = np.mean([s for i, s in enumerate(shares) if i % 3])
  assert 0.35 < share < 0.65  # 80 rows


def test_a_state_that_is_not_finite_is_not_passed_on():
  cfg = config(InitialState.STATE_PASSING)
  kept = random_like(initial.empty_kept(cfg)(build(cfg)))
  memory = kept.states.lower.memory.at[1, 0, 0, 0].set(jnp.nan)
  states = kept.states._replace(lower=kept.states.lower._replace(memory=memory))
  got = begin(cfg, kept._replace(states=states), 5).lower.memory
  assert not bool(jnp.any(got[1]))
  assert jnp.array_equal(got[2], memory[2])


def test_random_noise_has_one_deviation():
  cfg = config(InitialState.RANDOM_NOISE, noise_std=0.3, layers=LAYERS)
  first, second = begin(cfg, None, 0), begin(cfg, None, 1)
  assert first.lower[1] is None  # a window
  for stack, other in zip(first.lower[::2], second.lower[::2], strict=True):
    assert np.std(stack.memory) == pytest.approx(0.3, rel=0.15)
    assert not jnp.array_equal(stack.memory, other.memory)
    assert not any(np.any(tail) for tail in stack.tails)


def test_fitted_noise_is_like_the_final_states_of_each_head():
  cfg = config(InitialState.FITTED_NOISE, fit_decay=0.9)
  model = build(cfg)
  kept = initial.empty_kept(cfg)(model)
  assert not np.any(begin(cfg, kept, 0).lower.memory)
  # Two heads of different mean and deviation, the same at every step.
  noise = random_like(begin(cfg, kept, 0))
  scale = jnp.array([0.5, 2.0])[None, None, None, :, None, None]
  memory = noise.lower.memory * scale + 3 * scale
  after = noise._replace(lower=noise.lower._replace(memory=memory))
  for _ in range(5):
    kept = initial.keep(cfg, kept, after)
  got = np.asarray(begin(cfg, kept, 5).lower.memory)
  for head, size in enumerate((0.5, 2.0)):
    assert got[:, :, :, head].mean() == pytest.approx(3 * size, rel=0.15)
    assert got[:, :, :, head].std() == pytest.approx(size, rel=0.25)


def test_segments_begin_anew_and_may_take_any_final_state():
  cfg = config(InitialState.STATE_PASSING, segments=2)
  model, tokens = build(cfg), tokens_of(LENGTH)
  kept = initial.empty_kept(cfg)(model)
  run = jax.jit(initial.run)
  logits, after = run(model, tokens, kept.states)
  parts = tokens.reshape(2 * ROWS, LENGTH // 2)
  apart = jax.jit(lambda model, tokens: model(tokens))(model, parts)
  np.testing.assert_allclose(
    logits.reshape(apart.shape), apart, rtol=0, atol=1e-5
  )
  states = after.lower.memory
  assert states.shape[:2] == (ROWS, 2)
  # Every initial state of the next step is one of these eight.
  taken = begin(cfg, initial.keep(cfg, kept, after), 1).lower.memory
  known = {x.tobytes() for x in np.asarray(states).reshape(8, -1)}
  rows = np.asarray(taken).reshape(8, -1)
  assert all(row.tobytes() in known for row in rows)
  assert not jnp.array_equal(taken, states)


def test_micro_batches_have_their_own_rows_of_states():
  cfg = config(InitialState.STATE_PASSING)
  model, batch = build(cfg), batch_of(tokens_of(LENGTH + 1))
  states = random_like(initial.empty_kept(cfg)(model)).states
  totals = Totals(jnp.float32(ROWS * LENGTH), jnp.float32(1))
  loss = functools.partial(
    batch_loss, totals=totals, answer_weight=0.0, limits=Limits()
  )
  mesh, grad = make_mesh(MeshConfig()), jax.value_and_grad(loss, has_aux=True)

  @functools.partial(jax.jit, static_argnames="parts")
  def run(model, batch, states, parts):
    return accumulate(grad, model, batch, None, states, parts=parts, mesh=mesh)

  with jax.set_mesh(mesh):
    whole, parts = (run(model, batch, states, parts=n) for n in (1, 2))
  for got, want in zip(
    jax.tree.leaves(parts), jax.tree.leaves(whole), strict=True
  ):
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


class Crash(Exception):
  pass


@pytest.mark.usefixtures("compile_once")
@pytest.mark.parametrize(
  ("mode", "streams"),
  [
    (InitialState.TBTT, 3),
    pytest.param(InitialState.FITTED_NOISE, 1, marks=pytest.mark.slow),
  ],
)
def test_a_run_resumes_with_what_was_kept(mode, streams, tmp_path):
  """Killed after step 5, it goes on from step 4 to the same losses."""
  cfg = config(mode, streams=streams)

  def train(name, evaluators=()):
    build = functools.partial(LanguageModel, cfg.model)
    inputs = make_inputs(cfg, tmp_path)
    inputs = inputs._replace(build=lambda rngs: build(rngs=rngs))
    folder = tmp_path / name
    loop.train(cfg, workdir=folder, inputs=inputs, evaluators=evaluators)
    return losses(folder)

  class Stop(loop.Hook):
    def wants(self, step, moment):
      if step == 5:
        raise Crash
      return False

  whole = train("whole")
  with pytest.raises(Crash):
    train("again", [Stop()])
  again = train("again")
  assert sorted(whole) == list(range(1, 7))
  assert [again[i] for i in (5, 6)] == [whole[i] for i in (5, 6)]
  # What was kept matters: without it the losses are others.
  other = dataclasses.replace(
    cfg,
    train=dataclasses.replace(cfg.train, initial_state=InitialStateConfig()),
  )
  inputs = make_inputs(other, tmp_path)._replace(
    build=lambda rngs: LanguageModel(cfg.model, rngs=rngs)
  )
  loop.train(other, workdir=tmp_path / "zero", inputs=inputs)
  zero = losses(tmp_path / "zero")
  assert zero[1] == whole[1] and zero[6] != whole[6]
