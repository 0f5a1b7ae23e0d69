"""The rules of layers: what each kind can do, and what goes with what."""

from collections.abc import Iterator

from hsa_jax.config.fields import (
  Config,
  LayerConfig,
  Mixer,
  ModelConfig,
  Position,
)
from hsa_jax.config.layers import layers_of
from hsa_jax.config.recurrent_rules import recurrent_problems

UNBOUNDED = (Mixer.FULL, Mixer.STICK_BREAKING)  # keep every earlier token
IMPLEMENTATIONS = ("auto", "reference", "blocked", "splash", "cudnn")


def layer_problems(cfg: Config) -> Iterator[str]:
  """One line for every broken rule: field, value, rule, fix."""
  pattern = cfg.model.layers
  depth = cfg.model.num_lower_layers + cfg.model.num_upper_layers
  if len(pattern) > depth:
    yield (
      f"model.layers: {len(pattern)} layers in the pattern, and the model has"
      f" {depth}; the last would never be used"
    )
  resolved = layers_of(cfg.model, 0, len(pattern))
  for i, (layer, own) in enumerate(zip(pattern, resolved, strict=True)):
    yield from _window(f"model.layers[{i}]", layer)
    yield from _position(f"model.layers[{i}]", layer.mixer, own.cfg.position)
  yield from _schedule(cfg)
  yield from _alibi(cfg.model)
  yield from _context(cfg)
  yield from _implementation(cfg.model)
  yield from _rope(cfg.model)
  yield from recurrent_problems(cfg)


def _window(key: str, layer: LayerConfig) -> Iterator[str]:
  if layer.window is None:
    return
  if layer.mixer is not Mixer.WINDOW:
    yield (
      f"{key}.window = {layer.window}: a {layer.mixer} layer has none; leave it"
      " out, or use mixer = 'window'"
    )
  elif layer.window < 1:
    yield f"{key}.window = {layer.window}: must be at least 1"


def _position(key: str, mixer: Mixer, position: Position) -> Iterator[str]:
  if mixer is Mixer.FULL and position is Position.RELATIVE_ROPE:
    yield (
      f"{key}.position = 'relative_rope': is for windows; the keys of a full"
      " layer are rotated once, by their absolute position: use"
      " 'absolute_rope', or 'none'"
    )
  if mixer is Mixer.FULL and position is Position.ALIBI:
    yield (
      f"{key}.position = 'alibi': is for windows; use 'absolute_rope', or"
      " 'none'"
    )
  if mixer is Mixer.STICK_BREAKING and position is not Position.NONE:
    yield (
      f"{key}.position = {str(position)!r}: stick-breaking attention orders"
      " keys by itself; use 'none'"
    )


def _schedule(cfg: Config) -> Iterator[str]:
  """A window that a schedule narrows is the model's, and banded."""
  if not cfg.train.window_schedule:
    return
  if cfg.model.window_implementation == "splash":
    yield (
      "model.window_implementation = 'splash': its window is fixed, and"
      " train.window_schedule narrows it; use 'auto' or 'banded'"
    )
  for i, layer in enumerate(cfg.model.layers):
    if layer.window is not None:
      yield (
        f"model.layers[{i}].window = {layer.window}: train.window_schedule"
        " narrows model.window_size; leave one of the two out"
      )


def _alibi(m: ModelConfig) -> Iterator[str]:
  depth = m.num_lower_layers + m.num_upper_layers
  kinds = {layer.cfg.position for layer in layers_of(m, 0, depth)}
  if m.hsa.block_window:
    kinds.add(m.position)
  if m.window_implementation == "splash" and Position.ALIBI in kinds:
    yield (
      "model.window_implementation = 'splash': the kernel adds nothing to its"
      " logits, and position = 'alibi' does; use 'auto' or 'banded'"
    )


def _context(cfg: Config) -> Iterator[str]:
  if cfg.mesh.context == 1:
    return
  for i, layer in enumerate(cfg.model.layers):
    if layer.mixer in UNBOUNDED:
      yield (
        f"mesh.context = {cfg.mesh.context}: model.layers[{i}].mixer ="
        f" {str(layer.mixer)!r} needs the whole sequence on a device; use"
        " mesh.fsdp or mesh.tensor"
      )
      return


def _implementation(m: ModelConfig) -> Iterator[str]:
  name = m.full_implementation
  if name not in IMPLEMENTATIONS:
    names = ", ".join(IMPLEMENTATIONS)
    yield f"model.full_implementation = {name!r}: must be one of {names}"
  sticks = any(layer.mixer is Mixer.STICK_BREAKING for layer in m.layers)
  if sticks and name in ("splash", "cudnn"):
    yield (
      f"model.full_implementation = {name!r}: no kernel of stick-breaking"
      " attention; use 'auto' or 'blocked'"
    )


def _rope(m: ModelConfig) -> Iterator[str]:
  rope = m.rope
  if rope == type(rope)():
    return
  rotated = [
    layer.mixer is Mixer.FULL and layer.cfg.position is Position.ABSOLUTE_ROPE
    for layer in layers_of(m, 0, len(m.layers))
  ]
  reads = m.hsa.num_groups > 0 and m.hsa.position is Position.ABSOLUTE_ROPE
  if not any(rotated) and not reads:
    yield (
      "model.rope: is for full layers with position = 'absolute_rope' and reads"
      " with such a model.hsa.position, and there are none; leave it out"
    )
  for name, value in {
    "theta": rope.theta,
    "original_length": rope.original_length,
    "attention_factor": rope.attention_factor,
  }.items():
    if not value >= 0:
      yield f"model.rope.{name} = {value}: must not be negative"
  if not rope.factor >= 1:
    yield f"model.rope.factor = {rope.factor}: must be at least 1; 1 is off"
  if rope.factor > 1 and rope.original_length < 1:
    yield (
      f"model.rope.original_length = {rope.original_length}: with"
      f" model.rope.factor = {rope.factor} it must be the tokens of the longest"
      " training row"
    )
  if not rope.beta_fast > rope.beta_slow > 0:
    yield (
      f"model.rope.beta_fast = {rope.beta_fast}: must be above"
      f" model.rope.beta_slow = {rope.beta_slow}, and that above 0"
    )
