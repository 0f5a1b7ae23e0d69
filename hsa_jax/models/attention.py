"""The decoder block, and stacks of them in the order of their pattern."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from hsa_jax.config import (
  BlockForm,
  Layer,
  Mlp,
  ModelConfig,
  Remat,
  layers_of,
)
from hsa_jax.models.layers import GatedMlp, stack, stream_norm
from hsa_jax.models.mixers import MIXERS
from hsa_jax.models.remat import apply_remat, name_input
from hsa_jax.parallel import split_rows
from hsa_jax.types import Carry, Limits, RecurrentState

# Stacks up to this depth are unrolled: a compile-time choice, no layout.
MAX_UNROLLED_LAYERS = 4


class Block(nnx.Module):
  """`h = x + Mix(norm(x))`, then `h + MLP(norm(h))`; or side by side.

  Which of the two `config.BlockForm` says; a parallel block has one norm. A
  layer may be without an MLP.
  The mixer is called `attention` whichever it is: a name of checkpoints.
  """

  def __init__(self, layer: Layer, *, rngs: nnx.Rngs):
    cfg = layer.cfg
    self.form = cfg.block
    self.attention_norm = stream_norm(cfg)
    self.attention = MIXERS[layer.mixer].module(cfg, rngs=rngs)
    self.has_mlp = layer.mlp is Mlp.GATED
    if not self.has_mlp:
      return
    if self.form is BlockForm.SEQUENTIAL:
      self.mlp_norm = stream_norm(cfg)
    self.mlp = GatedMlp(
      cfg.embed_dim,
      cfg.mlp_dim,
      scale=cfg.init_scale,
      dtype=cfg.compute_dtype,
      rngs=rngs,
    )

  def __call__(
    self,
    x: Float[Array, "B T D"],
    state: Carry,
    position: jax.Array | int,
    limits: Limits,
    count: jax.Array | int | None = None,
  ) -> tuple[Float[Array, "B T D"], Carry]:
    x = name_input(split_rows(x))
    normed = self.attention_norm(x)
    read, state = self.attention(normed, state, position, limits, count)
    x = x + read
    if not self.has_mlp:
      return x, state
    if self.form is BlockForm.PARALLEL:
      return x + self.mlp(normed), state
    return x + self.mlp(self.mlp_norm(x)), state


class Pattern(nnx.Module):
  """Blocks of several kinds, which repeat.

  Attributes:
    places: for each place of the pattern its blocks, stacked on a leading axis;
      the first places may have one more than the last.
  """

  def __init__(self, places: list[Block]):
    self.places = nnx.List(places)


Blocks: TypeAlias = Block | Pattern  # a stack of equal ones, or several


def build_blocks(
  cfg: ModelConfig, layers: Sequence[Layer], key: jax.Array
) -> Blocks:
  """Blocks of these layers of a model, equal ones stacked on a leading axis.

  Layers repeat with the shortest period that there is; those of one place of it
  are a stack. A stack of no layers is one, too.
  """
  period = _period(layers)
  if period <= 1:
    layer = layers[0] if layers else layers_of(cfg, 0, 1)[0]
    return _build(layer, key, len(layers))
  keys = jax.random.split(key, period)
  return Pattern(
    [_build(layers[i], keys[i], len(layers[i::period])) for i in range(period)]
  )


def address_of(layers: Sequence[Layer], i: int) -> tuple[str, int]:
  """Where `build_blocks` puts layer `i`: a prefix of names, and a row."""
  period = _period(layers)
  return ("", i) if period <= 1 else (f"places.{i % period}.", i // period)


def _build(layer: Layer, key: jax.Array, count: int) -> Block:
  return stack(lambda k: Block(layer, rngs=nnx.Rngs(k)), key, count)


def _period(layers: Sequence[Layer]) -> int:
  """The fewest layers whose repetition gives all."""
  every = range(1, len(layers) + 1)
  return next(
    (p for p in every if list(layers[p:]) == list(layers[:-p])), len(layers)
  )


def empty_state(blocks: Blocks, batch: int, capacity: int) -> Carry:
  """What a stack of blocks remembers before the first token."""
  if isinstance(blocks, Pattern):
    return tuple(empty_state(b, batch, capacity) for b in blocks.places)
  one = blocks.attention.init_state(batch, capacity)
  return jax.tree.map(lambda x: jnp.stack([x] * depth_of(blocks)), one)


def recurrent_state(blocks: Blocks, batch: int) -> Carry:
  """`empty_state` of recurrent layers alone; None for all others."""
  if isinstance(blocks, Pattern):
    return tuple(recurrent_state(b, batch) for b in blocks.places)
  one = jax.eval_shape(lambda: blocks.attention.init_state(batch, 1))
  if not isinstance(one, RecurrentState):
    return None
  return empty_state(blocks, batch, 0)


def single_layers(
  blocks: Blocks, caches: Carry
) -> Iterator[tuple[Block, Carry]]:
  """The layers of a stack in their order, each with what it remembers."""
  several = isinstance(blocks, Pattern)
  places = list(blocks.places) if isinstance(blocks, Pattern) else [blocks]
  states = list(caches) if several else [caches]
  for i in range(sum(depth_of(place) for place in places)):
    place, row = i % len(places), i // len(places)
    pair = (places[place], states[place])
    yield jax.tree.map(lambda a, row=row: a[row], pair)


def depth_of(blocks: Block) -> int:
  """Layers of a stack."""
  return blocks.attention_norm.scale.shape[0]


def run_blocks(
  blocks: Blocks,
  x: Float[Array, "B T D"],
  caches: Carry,
  *,
  position: jax.Array | int = 0,
  limits: Limits = Limits(),
  remat: Remat = Remat.NONE,
  count: jax.Array | int | None = None,
) -> tuple[Float[Array, "B T D"], Carry]:
  """Runs a stack of blocks.

  Args:
    blocks: of `build_blocks`.
    x: the stream.
    caches: what the layers remember, of `empty_state`; or None.
    position: absolute index of the first token.
    limits: values of the schedules.
    remat: what the backward pass recomputes.
    count: leading tokens of `x` that are real and enter the caches; None: all.

  Returns:
    The stream and the caches after the real tokens.
  """

  def body(hidden: jax.Array, layer: tuple) -> tuple:
    block, cache = layer
    return block(hidden, cache, position, limits, count)

  if isinstance(blocks, Pattern):
    return _run_pattern(body, list(blocks.places), x, caches, remat)
  depth = depth_of(blocks)
  unroll = depth if depth <= MAX_UNROLLED_LAYERS else 1
  body = apply_remat(body, remat, in_scan=unroll < depth)
  return lax.scan(body, x, (blocks, caches), unroll=unroll)


def _run_pattern(
  body: Callable[[jax.Array, tuple], tuple],
  blocks: list[Block],
  x: jax.Array,
  caches: Carry,
  remat: Remat,
) -> tuple[jax.Array, Carry]:
  """Layers of several kinds in turn: whole periods in a scan, then the rest."""
  nothing = caches is None
  caches = [None] * len(blocks) if caches is None else list(caches)
  stacks: list[Any] = list(zip(blocks, caches, strict=True))

  def run(x: jax.Array, places: int, start: int, stop: int) -> tuple:
    periods = stop - start
    unroll = periods if places * periods <= MAX_UNROLLED_LAYERS else 1
    call = apply_remat(body, remat, in_scan=unroll < periods)

    def period(hidden: jax.Array, layers: list) -> tuple:
      after = []
      for layer in layers:
        hidden, state = call(hidden, layer)
        after.append(state)
      return hidden, after

    some = jax.tree.map(lambda a: a[start:stop], stacks[:places])
    return lax.scan(period, x, some, unroll=unroll)

  whole = depth_of(blocks[-1])
  rest = sum(depth_of(block) > whole for block in blocks)
  x, after = run(x, len(blocks), 0, whole)
  if rest:
    x, last = run(x, rest, whole, whole + 1)
    joined = jax.tree.map(lambda *a: jnp.concatenate(a), after[:rest], last)
    after = [*joined, *after[rest:]]
  return x, None if nothing else tuple(after)
