"""`Mamba2ForCausalLM`, and the original names of state-spaces' Mamba-2.

A stack of Mamba-2 mixers without MLPs, each behind an RMSNorm. One matrix,
`in_proj`, holds what five of ours hold, and one filter, `conv1d`, what three
do: their rows are ours one behind the other.
"""

import functools
import math

import numpy as np

from hsa_jax.config import (
  HsaConfig,
  Layer,
  LayerConfig,
  Mamba2Config,
  Mixer,
  Mlp,
  ModelConfig,
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

NAME = "Mamba2ForCausalLM"
ORIGINAL = "state-spaces Mamba-2"
HEAD = "lm_head.weight"
# As older and newer versions write it.
ENDLESS = ([0.0, math.inf], [0.0, {"__float__": "Infinity"}])


def read(settings: Settings) -> Imported:
  """The model that a `config.json` describes; `settings` is not closed."""
  width, expand = settings.count("hidden_size"), settings.count("expand", 2)
  own = Mamba2Config(
    expand=expand,
    head_dim=settings.count("head_dim", 64),
    state_dim=settings.count("state_size", 128),
    num_groups=settings.count("n_groups", 8),
    conv_width=settings.count("conv_kernel", 4),
    chunk_size=settings.count("chunk_size", 256),
    step_min=settings.number("time_step_min", 1e-3),
    step_max=settings.number("time_step_max", 0.1),
    step_floor=settings.number("time_step_floor", 1e-4),
  )
  _demand(settings, expand * width // own.head_dim)
  model = _model(
    own,
    vocab_size=settings.count("vocab_size"),
    embed_dim=width,
    num_lower_layers=settings.count("num_hidden_layers"),
    norm_eps=settings.number("layer_norm_epsilon", 1e-5),
    init_scale=settings.number("initializer_range", 0.1),
    tie_embeddings=settings.switch("tie_word_embeddings", False),
    compute_dtype=compute_dtype(settings),
  )
  table = "backbone.embeddings.weight"
  return Imported(NAME, model, _plan(model, table), 0, _copies(model, table))


def read_original(settings: Settings) -> Imported:
  """The model of a `config.json` as state-spaces publish it.

  What it leaves out are defaults of their package: heads of 64, states of 128,
  one group, filters of 4.
  """
  layer = settings.group("ssm_cfg")
  kind = layer.raw("layer", "Mamba1")  # their default
  if kind != "Mamba2":
    layer.refuse("layer", kind, "must be 'Mamba2'")
  own = Mamba2Config(
    expand=layer.count("expand", 2),
    head_dim=layer.count("headdim", 64),
    state_dim=layer.count("d_state", 128),
    num_groups=layer.count("ngroups", 1),
    conv_width=layer.count("d_conv", 4),
    chunk_size=layer.count("chunk_size", 256),
  )
  settings.demand("d_intermediate", 0, why="blocks have no MLP here")
  settings.demand("attn_layer_idx", [], why="no attention between the layers")
  settings.demand("rms_norm", True, why="the norm is RMSNorm here")
  settings.ignore("attn_cfg", "fused_add_norm", "residual_in_fp32")
  multiple = settings.count("pad_vocab_size_multiple", 8)
  vocabulary = -(-settings.count("vocab_size") // multiple) * multiple
  model = _model(
    own,
    vocab_size=vocabulary,
    embed_dim=settings.count("d_model"),
    num_lower_layers=settings.count("n_layer"),
    norm_eps=1e-5,
    tie_embeddings=settings.switch("tie_embeddings", True),
    compute_dtype=compute_dtype(settings),
  )
  table = "backbone.embedding.weight"
  return Imported(
    ORIGINAL, model, _plan(model, table), 2048, _copies(model, table)
  )


def _demand(settings: Settings, heads: int) -> None:
  """What other models of the name could be, and this package has not."""
  demand = settings.demand
  demand(
    "num_heads", heads, why=f"must be expand * hidden_size / head_dim = {heads}"
  )
  demand("hidden_act", "silu", "swish", why="filters and gates take silu here")
  demand("use_bias", False, why="projections have no bias here")
  demand("use_conv_bias", True, why="filters have a bias here")
  limits = settings.raw("time_step_limit", ENDLESS[0])
  if limits not in ENDLESS:
    settings.refuse(
      "time_step_limit", limits, "steps are not cut off here: 0 to infinity"
    )
  settings.ignore(
    "time_step_rank", "rescale_prenorm_residual", "residual_in_fp32"
  )


def _model(own: Mamba2Config, **sizes) -> ModelConfig:
  """Fields that only attention reads stay at their defaults."""
  return ModelConfig(
    num_upper_layers=0,
    layers=(LayerConfig(mixer=Mixer.MAMBA2, mlp=Mlp.NONE),),
    mamba2=own,
    hsa=HsaConfig(num_groups=0),
    **sizes,
  )


def _copies(model: ModelConfig, table: str) -> dict[str, str]:
  return {HEAD: table} if model.tie_embeddings else {}


def _plan(model: ModelConfig, table: str) -> Plan:
  vocabulary = (model.vocab_size, model.embed_dim)
  plan: Plan = {
    "embedding.embedding": Source(table, vocabulary),
    "norm.scale": Source("backbone.norm_f.weight", (model.embed_dim,)),
    **in_layers(
      "lower_blocks", lower_layers(model), functools.partial(_block, model)
    ),
  }
  if not model.tie_embeddings:
    plan["output.kernel"] = Source(HEAD, vocabulary, transposed)
  return plan


def _block(model: ModelConfig, i: int, layer: Layer) -> dict[str, Source]:
  del layer  # all are alike
  own, width = model.mamba2, model.embed_dim
  inner = own.expand * width
  shared, heads = own.num_groups * own.state_dim, inner // own.head_dim
  there = f"backbone.layers.{i}"
  mixer = f"{there}.mixer"
  ours = {
    "attention_norm.scale": Source(f"{there}.norm.weight", (width,)),
    "attention.norm.scale": Source(f"{mixer}.norm.weight", (inner,)),
    "attention.log_slope": Source(f"{mixer}.A_log", (heads,)),
    "attention.skip_gain": Source(f"{mixer}.D", (heads,)),
    "attention.step_bias": Source(f"{mixer}.dt_bias", (heads,)),
    "attention.out.kernel": Source(
      f"{mixer}.out_proj.weight", (width, inner), transposed
    ),
  }
  projected = {
    "gate": inner,
    "value": inner,
    "key": shared,
    "query": shared,
    "step": heads,
  }
  shape = (sum(projected.values()), width)
  for name, rows in _stacked(projected).items():
    ours[f"attention.{name}.kernel"] = Source(
      f"{mixer}.in_proj.weight", shape, transposed, rows
    )
  filtered = {"value": inner, "key": shared, "query": shared}
  channels = sum(filtered.values())
  for name, rows in _stacked(filtered).items():
    ours[f"attention.{name}_conv.taps"] = Source(
      f"{mixer}.conv1d.weight", (channels, 1, own.conv_width), _taps, rows
    )
    ours[f"attention.{name}_conv.bias"] = Source(
      f"{mixer}.conv1d.bias", (channels,), rows=rows
    )
  return ours


def _stacked(sizes: dict[str, int]) -> dict[str, tuple[int, int]]:
  """Rows of each part of a tensor."""
  found, start = {}, 0
  for name, size in sizes.items():
    found[name] = (start, start + size)
    start += size
  return found


def _taps(weight: np.ndarray) -> np.ndarray:
  """Their filters are [channel, 1, width], ours [width, channel]."""
  return weight[:, 0].T
