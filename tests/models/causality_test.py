"""T3: no output depends on a later token, wherever in a chunk it stands."""

import jax
import jax.numpy as jnp
import pytest

from hsa_jax.config import (
  Landmark,
  Position,
  Residual,
  Weighting,
  WindowOverlap,
)
from tests.models.helpers import build, random_tokens, run, tiny

# Several options at a time: one leak cannot hide another.
VARIANTS = {
  "default": {},
  "no encoder, mass, sink, gather": {
    "hsa_landmark": Landmark.MEAN,
    "hsa_encoder_layers": 0,
    "hsa_weighting": Weighting.MASS,
    "hsa_sink": 1,
    "hsa_implementation": "gather",
  },
  "two encoder layers, softmax, window excluded": {
    "hsa_encoder_layers": 2,
    "hsa_encoder_prenorm": True,
    "hsa_weighting": Weighting.SOFTMAX,
    "hsa_landmark_norm": True,
    "hsa_window_overlap": WindowOverlap.EXCLUDE,
  },
  "mean, decay, blocks of tokens, standard residual, window in the block": {
    "hsa_landmark": Landmark.MEAN,
    "hsa_weighting": Weighting.SOFTMAX_DECAY,
    "hsa_tokens_per_retrieval": 3,
    "hsa_residual": Residual.STANDARD,
    "hsa_block_window": True,
  },
  "landmark tokens ask for two groups, ALiBi": {
    "position": Position.ALIBI,
    "hsa_landmark": Landmark.TOKEN,
    "hsa_tokens_per_retrieval": 4,
    "hsa_groups_per_retrieval": 2,
    "hsa_weighting": Weighting.SOFTMAX,
    "hsa_block_window": True,
  },
}
LENGTH = 14  # chunks of 4: borders, middles and an incomplete tail


@jax.jit
def jacobian(model):
  """d output t / d embedding of token j, as sums of magnitudes [T, T].

  Every token has an id of its own, so row j of the table is token j alone; an
  untied head keeps the table out of the logits.
  """
  tokens = jnp.arange(LENGTH)[None]
  _, pull = jax.vjp(lambda m: jnp.sin(m(tokens)).sum(-1)[0], model)
  rows = jax.vmap(lambda row: pull(row)[0].embedding.embedding[...])
  return jnp.abs(rows(jnp.eye(LENGTH)))[:, :LENGTH].sum(-1)


@pytest.mark.parametrize("name", VARIANTS)
def test_no_output_depends_on_a_later_token(name):
  # Three layers with windows of 4 reach 9 tokens back, the memory further.
  small = {"num_lower_layers": 1, "window_size": 4, "hsa_top_k": 3}
  cfg = tiny(tie_embeddings=False, **small, **VARIANTS[name])
  influence = jacobian(build(cfg))
  later = jnp.triu(influence, k=1)
  assert float(later.max()) == 0.0, jnp.argwhere(later > 0)[:5]
  assert float(jnp.diagonal(influence).min()) > 0
  assert float(influence[13, :4].min()) > 0


@pytest.mark.parametrize("position", range(4, 12))
def test_changing_one_token_changes_nothing_before_it(position):
  model = build(tiny())
  tokens = random_tokens(LENGTH)
  other = tokens.at[0, position].set((tokens[0, position] + 1) % 40)
  before = run(model, tokens)[:, :position]
  assert jnp.array_equal(before, run(model, other)[:, :position])
