"""`Cohere2ForCausalLM`: Command R7B and its like, RNoPE-SWA in production.

Attention and MLP stand side by side behind one LayerNorm without bias; windows
with RoPE alternate with full layers without positions; logits are scaled.
"""

import functools

import numpy as np

from hsa_jax.config import (
  BlockForm,
  HsaConfig,
  Layer,
  LayerConfig,
  Mixer,
  ModelConfig,
  Norm,
  Position,
  lower_layers,
)
from hsa_jax.interop.published.dtypes import compute_dtype
from hsa_jax.interop.published.plan import (
  Imported,
  Plan,
  Source,
  in_layers,
  transposed,
)
from hsa_jax.interop.published.settings import Settings

NAME = "Cohere2ForCausalLM"
EMBEDDING = "model.embed_tokens.weight"
SCALED = "scaled angles of windows are not known here"
SLIDING, FULL = "sliding_attention", "full_attention"
LAYERS = {
  SLIDING: LayerConfig(position=Position.RELATIVE_ROPE),
  FULL: LayerConfig(mixer=Mixer.FULL, position=Position.NONE),
}


def read(settings: Settings) -> Imported:
  """The model that a `config.json` describes; `settings` is not closed."""
  heads = settings.count("num_attention_heads")
  width = settings.count("hidden_size")
  depth = settings.count("num_hidden_layers")
  tied = settings.switch("tie_word_embeddings", True)
  _demand(settings, tied)
  model = ModelConfig(
    vocab_size=settings.count("vocab_size"),
    embed_dim=width,
    num_lower_layers=depth,
    num_upper_layers=0,
    num_heads=heads,
    num_kv_heads=settings.count("num_key_value_heads", heads),
    head_dim=settings.count("head_dim", max(width // heads, 1)),
    mlp_dim=settings.count("intermediate_size"),
    window_size=settings.count("sliding_window"),
    rope_theta=_theta(settings),
    qk_norm=False,
    norm_eps=settings.number("layer_norm_eps", 1e-5),
    init_scale=settings.number("initializer_range", 0.02),
    tie_embeddings=tied,
    compute_dtype=compute_dtype(settings),
    layers=_pattern(settings, depth),
    block=BlockForm.PARALLEL,
    norm=Norm.LAYER,
    logit_scale=settings.number("logit_scale", 0.0625),
    hsa=HsaConfig(num_groups=0),
  )
  length = settings.count("max_position_embeddings", 8192)
  copies = {"lm_head.weight": EMBEDDING} if tied else {}
  return Imported(NAME, model, _plan(model), length, copies)


def halves(matrix: np.ndarray, *, head_dim: int) -> np.ndarray:
  """Rows of queries or keys in the order of our rotation, and transposed.

  They rotate neighbours (2i, 2i + 1) of a head, we rotate (i, i + H/2): their
  even rows come first here. Products of a query with a key stay what they are.
  """
  heads = matrix.reshape(-1, head_dim // 2, 2, matrix.shape[1])
  return heads.swapaxes(1, 2).reshape(matrix.shape).T


def _demand(settings: Settings, tied: bool) -> None:
  """What other models of the name could be, and this package has not."""
  demand = settings.demand
  demand("hidden_act", "silu", why="this MLP is SwiGLU: must be 'silu'")
  demand("attention_bias", False, why="projections have no bias here")
  demand("use_qk_norm", False, why="not part of the Cohere2 that is read here")
  demand("use_parallel_block", True, why="blocks of Cohere2 are parallel")
  demand("use_gated_activation", True, why="the MLP of Cohere2 is gated")
  demand("position_embedding_type", "rope_gptj", why="must be 'rope_gptj'")
  demand("rotary_pct", 1.0, 1, why="heads are rotated whole here")
  demand(
    "rope_scaling", None, why="scaled angles of windows are not known here"
  )
  demand(
    "order_of_interleaved_layers",
    "local_attn_first",
    why="must be 'local_attn_first'",
  )
  demand("use_embedding_sharing", tied, why="contradicts tie_word_embeddings")
  demand(
    "quantization_config", None, why="take the release that is not quantised"
  )
  settings.ignore("use_parallel_embedding")


def _theta(settings: Settings) -> float:
  """The base of the angles, from either spelling of it."""
  if not settings.has("rope_parameters"):
    return settings.number("rope_theta", 10_000.0)
  settings.ignore("rope_theta")
  rope = settings.group("rope_parameters")
  rope.demand("rope_type", "default", why=SCALED)
  return rope.number("rope_theta", 10_000.0)


def _pattern(settings: Settings, depth: int) -> tuple[LayerConfig, ...]:
  """The shortest pattern that gives the listed layers."""
  period = settings.count("sliding_window_pattern", 4)
  settings.demand("layer_switch", period, why="must be sliding_window_pattern")
  every = [FULL if (i + 1) % period == 0 else SLIDING for i in range(depth)]
  kinds = settings.raw("layer_types", every)
  known = isinstance(kinds, list) and all(kind in LAYERS for kind in kinds)
  if not known or len(kinds) != depth:
    settings.refuse(
      "layer_types",
      kinds,
      f"must name {depth} layers, each {SLIDING!r} or {FULL!r}",
    )
    return ()
  shortest = next(
    p for p in range(1, depth + 1) if kinds[p:] == kinds[: depth - p]
  )
  return tuple(LAYERS[kind] for kind in kinds[:shortest])


def _plan(model: ModelConfig) -> Plan:
  vocabulary = (model.vocab_size, model.embed_dim)
  plan: Plan = {
    "embedding.embedding": Source(EMBEDDING, vocabulary),
    "norm.scale": Source("model.norm.weight", (model.embed_dim,)),
    **in_layers(
      "lower_blocks",
      lower_layers(model),
      functools.partial(_block, model),
    ),
  }
  if not model.tie_embeddings:
    plan["output.kernel"] = Source("lm_head.weight", vocabulary, transposed)
  return plan


def _block(model: ModelConfig, i: int, layer: Layer) -> dict[str, Source]:
  del layer  # its parameters are those of any other
  width, there = model.embed_dim, f"model.layers.{i}"
  queries = model.num_heads * model.head_dim
  keys = model.num_kv_heads * model.head_dim
  rotated = functools.partial(halves, head_dim=model.head_dim)

  def attention(name: str, shape: tuple[int, int], change) -> Source:
    return Source(f"{there}.self_attn.{name}_proj.weight", shape, change)

  def mlp(name: str, shape: tuple[int, int]) -> Source:
    return Source(f"{there}.mlp.{name}_proj.weight", shape, transposed)

  return {
    "attention_norm.scale": Source(f"{there}.input_layernorm.weight", (width,)),
    "attention.query.kernel": attention("q", (queries, width), rotated),
    "attention.key.kernel": attention("k", (keys, width), rotated),
    "attention.value.kernel": attention("v", (keys, width), transposed),
    "attention.out.kernel": attention("o", (width, queries), transposed),
    "mlp.gate.kernel": mlp("gate", (model.mlp_dim, width)),
    "mlp.up.kernel": mlp("up", (model.mlp_dim, width)),
    "mlp.down.kernel": mlp("down", (width, model.mlp_dim)),
  }
