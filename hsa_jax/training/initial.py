"""What recurrent layers begin a training row with, and what a step leaves them.

Interventions of arXiv 2507.02782: a state that training never met is what makes
a recurrent model fail beyond its training length, so rows begin with others
than zeros. No gradient goes into an initial state: it is no argument that the
loss is differentiated by.

Between two steps states have their row of the batch first, `[B n L ...]` for
`n` segments of a row and L layers of a stack; `run` hands them to the model.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from hsa_jax.config import Config, InitialState
from hsa_jax.data.streams import place_of
from hsa_jax.types import RecurrentState, RowStates

KEEPING = (InitialState.STATE_PASSING, InitialState.TBTT)


class Fitted(NamedTuple):
  """Means over the entries of a head's final states, `[L N]`, not corrected.

  Attributes:
    mean: of the entries.
    square: of their squares.
  """

  mean: Float[Array, "L N"]
  square: Float[Array, "L N"]


class Kept(NamedTuple):
  """What a step leaves to the next one.

  Attributes:
    states: final states of its rows; None where the mode keeps none.
    fitted: `RowStates` of `Fitted`; None where nothing is fitted.
  """

  states: RowStates | None
  fitted: Any


def is_on(cfg: Config) -> bool:
  """Whether the step has to do with initial states at all."""
  own = cfg.train.initial_state
  return own.mode is not InitialState.ZERO or own.segments > 1


def empty_kept(cfg: Config) -> Callable[[Any], Kept | None]:
  """What a model has before its first step, as a function of the model."""
  own, rows = cfg.train.initial_state, cfg.data.stages[0].batch_size

  def make(model: Any) -> Kept | None:
    if own.mode in KEEPING:
      return Kept(_empty(model, rows, own.segments), None)
    if own.mode is not InitialState.FITTED_NOISE:
      return None
    return Kept(None, _map(_nothing_fitted, model.init_row_states(1)))

  return make


def begin(
  cfg: Config,
  kept: Kept | None,
  model: Any,
  step: Int[Array, ""],
  *,
  rows: int,
) -> RowStates | None:
  """Initial states of a step; None where all begin with zeros.

  Args:
    cfg: `train.initial_state`, `train.seed` and the stages are used.
    kept: of the step before.
    model: whose layers they are for.
    step: steps done before, over all stages.
    rows: of the batch.
  """
  if not is_on(cfg):
    return None
  own = cfg.train.initial_state
  key = jax.random.fold_in(jax.random.key(cfg.train.seed), step)
  # Away from the stream of the selection noise, which begins the same way.
  draw, keep, pick = jax.random.split(jax.random.fold_in(key, 1), 3)
  states = _empty(model, rows, own.segments)
  if own.mode is InitialState.RANDOM_NOISE:
    states = _noise(states, draw, lambda _: (0.0, own.noise_std))
  elif own.mode is InitialState.FITTED_NOISE:
    assert kept is not None
    states = _fitted_noise(states, draw, kept.fitted, own.fit_decay, step)
  elif own.mode in KEEPING:
    assert kept is not None and kept.states is not None
    states = _elsewhere(kept.states, pick) if own.segments > 1 else kept.states
  going_on = jax.random.bernoulli(keep, own.probability, (rows, own.segments))
  if own.reset_every:
    going_on &= step % own.reset_every != 0
  if own.mode is InitialState.TBTT:
    going_on &= ~_begins(cfg, step, rows)[:, None]
  return _where(going_on & _finite(states), states)


def run(
  model: Any, tokens: Any, states: RowStates, **options: Any
) -> tuple[jax.Array, RowStates]:
  """Logits, and the final states in the order of the initial ones."""
  segments = jax.tree.leaves(states)[0].shape[1]

  def layers_first(x: jax.Array) -> jax.Array:
    return jnp.moveaxis(x.reshape(-1, *x.shape[2:]), 1, 0)

  def rows_first(x: jax.Array) -> jax.Array:
    x = jnp.moveaxis(x, 0, 1)
    return x.reshape(-1, segments, *x.shape[1:])

  inner = jax.tree.map(layers_first, states)
  logits, after = model.with_states(tokens, inner, **options)
  return logits, jax.tree.map(rows_first, after)


def keep(
  cfg: Config, kept: Kept | None, after: RowStates | None
) -> Kept | None:
  """What the final states of a step leave to the next one."""
  own = cfg.train.initial_state
  if kept is None:
    return None
  if kept.fitted is None:
    return kept._replace(states=after)
  past = own.fit_decay

  def update(state: RecurrentState, fitted: Fitted) -> Fitted:
    memory = jnp.moveaxis(state.memory, (2, 3), (0, 1))
    axes = tuple(range(2, memory.ndim))
    now = Fitted(jnp.mean(memory, axes), jnp.mean(memory**2, axes))
    return Fitted(
      *(past * a + (1 - past) * b for a, b in zip(fitted, now, strict=True))
    )

  fitted = _map(update, after, kept.fitted)
  # A step that is not finite must not be remembered for ever.
  finite = jax.tree.map(
    lambda new, old: jnp.where(jnp.isfinite(new), new, old),
    fitted,
    kept.fitted,
  )
  return kept._replace(fitted=finite)


def _is_state(x: Any) -> bool:
  return isinstance(x, RecurrentState | Fitted)


def _map(change: Callable[..., Any], *trees: Any) -> Any:
  """`change` for each stack of recurrent layers; None stays None."""
  return jax.tree.map(change, *trees, is_leaf=_is_state)


def _empty(model: Any, rows: int, segments: int) -> RowStates:
  def shaped(x: jax.Array) -> jax.Array:
    return jnp.zeros((rows, segments, x.shape[0], *x.shape[2:]), x.dtype)

  return jax.tree.map(shaped, model.init_row_states(1))


def _nothing_fitted(state: RecurrentState) -> Fitted:
  layers, _, heads = state.memory.shape[:3]
  return Fitted(jnp.zeros((layers, heads)), jnp.zeros((layers, heads)))


def _noise(
  states: RowStates, key: jax.Array, moments: Callable[[int], tuple]
) -> RowStates:
  """Normal memories of a mean and deviation each; nothing in the filters."""
  stacks, structure = jax.tree.flatten(states, is_leaf=_is_state)
  noisy = []
  for i, state in enumerate(stacks):
    mean, deviation = moments(i)
    shape = state.memory.shape
    noise = jax.random.normal(jax.random.fold_in(key, i), shape)
    noisy.append(state._replace(memory=mean + deviation * noise))
  return jax.tree.unflatten(structure, noisy)


def _fitted_noise(
  states: RowStates,
  key: jax.Array,
  fitted: Any,
  decay: float,
  step: Int[Array, ""],
) -> RowStates:
  """As the final states of each layer and head were; zeros at step 0."""
  stacks = jax.tree.leaves(fitted, is_leaf=_is_state)
  # Means that began at zero are short of what they have not seen.
  seen = jnp.maximum(1 - decay ** step.astype(jnp.float32), 1e-12)

  def moments(i: int) -> tuple:
    mean, square = (x / seen for x in stacks[i])
    deviation = jnp.sqrt(jnp.maximum(square - mean**2, 0))
    return tuple(x[None, None, ..., None, None] for x in (mean, deviation))

  return _noise(states, key, moments)


def _elsewhere(states: RowStates, key: jax.Array) -> RowStates:
  """For every segment the state of a random one, of any row."""
  rows, segments = jax.tree.leaves(states)[0].shape[:2]
  chosen = jax.random.randint(key, (rows, segments), 0, rows * segments)

  def take(x: jax.Array) -> jax.Array:
    return x.reshape(-1, *x.shape[2:])[chosen]

  return jax.tree.map(take, states)


def _begins(cfg: Config, step: Int[Array, ""], rows: int) -> jax.Array:
  """Whether each row begins a stream at this step, or the stage begins."""
  stages = cfg.data.stages
  ends = np.cumsum([stage.num_steps for stage in stages])
  index = jnp.searchsorted(jnp.asarray(ends), step, side="right")
  index = jnp.minimum(index, len(stages) - 1)
  first = jnp.asarray(np.r_[0, ends[:-1]])[index]
  steps = jnp.asarray([stage.stream_steps for stage in stages])[index]
  inside = step - first
  place = place_of(inside, jnp.arange(rows), rows=rows, steps=steps)
  return (place.index == 0) | (inside == 0)


def _finite(states: RowStates) -> jax.Array:
  """By row and segment; one that is not would poison all that follow."""
  checks = [
    jnp.all(jnp.isfinite(x), axis=tuple(range(2, x.ndim)))
    for x in jax.tree.leaves(states)
  ]
  return jnp.all(jnp.stack(checks), axis=0)


def _where(going_on: jax.Array, states: RowStates) -> RowStates:
  def choose(x: jax.Array) -> jax.Array:
    mask = going_on.reshape(*going_on.shape, *(1,) * (x.ndim - 2))
    return jnp.where(mask, x, jnp.zeros_like(x))

  return jax.tree.map(choose, states)
