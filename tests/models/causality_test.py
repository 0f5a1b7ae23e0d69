"""T3: no output depends on a later token, wherever in a chunk it stands."""

import jax
import jax.numpy as jnp
import pytest

from hsa_jax.config import Landmark, Residual, Weighting, WindowOverlap
from tests.models.helpers import build, random_tokens, tiny

VARIANTS = {
  "default": {},
  "mean landmark": {"hsa_landmark": Landmark.MEAN},
  "no encoder": {"hsa_landmark": Landmark.MEAN, "hsa_encoder_layers": 0},
  "two encoder layers": {"hsa_encoder_layers": 2, "hsa_encoder_prenorm": True},
  "softmax": {"hsa_weighting": Weighting.SOFTMAX, "hsa_landmark_norm": True},
  "decay": {"hsa_weighting": Weighting.SOFTMAX_DECAY},
  "mass and sink": {"hsa_weighting": Weighting.MASS, "hsa_sink": 1},
  "window excluded": {"hsa_window_overlap": WindowOverlap.EXCLUDE},
  "three tokens per retrieval": {"hsa_tokens_per_retrieval": 3},
  "standard residual": {"hsa_residual": Residual.STANDARD},
  "window in the block": {"hsa_block_window": True},
  "gather": {"hsa_implementation": "gather"},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_no_output_depends_on_a_later_token(name):
  """The Jacobian of each output with respect to the input embeddings."""
  model = build(tiny(**VARIANTS[name]))
  length = 14  # chunks of 4: borders, middles and an incomplete tail
  tokens = random_tokens(length)
  one_hot = jax.nn.one_hot(tokens, 40)

  def outputs(one_hot):
    table = model.embedding.embedding[...]

    class Embedded:
      def __call__(self, _):
        return one_hot @ table

      attend = staticmethod(model.embedding.attend)

    changed = jax.tree.map(lambda x: x, model)
    object.__setattr__(changed, "embedding", Embedded())
    return jnp.sin(changed(tokens)).sum(-1)[0]

  influence = jnp.abs(jax.jit(jax.jacrev(outputs))(one_hot))[:, 0].sum(-1)
  later = jnp.triu(influence, k=1)
  assert float(later.max()) == 0.0, jnp.argwhere(later > 0)[:5]
  assert float(jnp.diagonal(influence).min()) > 0
  # Far beyond the reach of the lower windows: only the memory carries this.
  assert float(influence[13, 0]) > 0 or name in ("window excluded",)


@pytest.mark.parametrize("position", range(4, 12))
def test_changing_one_token_changes_nothing_before_it(position):
  model = build(tiny())
  run = jax.jit(lambda m, t: m(t))
  tokens = random_tokens(14)
  other = tokens.at[0, position].set((tokens[0, position] + 1) % 40)
  before = run(model, tokens)[:, :position]
  assert jnp.array_equal(before, run(model, other)[:, :position])
