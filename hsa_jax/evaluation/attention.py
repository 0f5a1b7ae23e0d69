"""Suite `effective_attention`: where full layers look while they answer.

Of the tokens that have to say the answer of S-NIAH, the attention of each full
layer is shared out over the keys of the context:

    begin     its first ten tokens
    needle    the needle, from its first token through its value
    context   the rest of the haystack
    question  question and answer, up to the token itself

with the entropy of the whole distribution, in nats; means over heads and answer
tokens. A layer that retrieves has its mass on the needle at every length; one
that flattens loses it to the context. The measure is that of arXiv 2501.18795,
which takes the needle at half the depth: here the depths are stratified.

The context is streamed through the model's caches, and the question read layer
by layer behind it. Samples are read one at a time.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from hsa_jax.config import Mixer, ModelConfig, SourceConfig, Task, lower_layers
from hsa_jax.data.sample import Piece, Splice
from hsa_jax.data.tokens.layout import TokenSample
from hsa_jax.evaluation import scores
from hsa_jax.evaluation.cost import Cost, cost_fields, summarise_cost
from hsa_jax.evaluation.lengths import FlagError, format_length
from hsa_jax.evaluation.room import Room
from hsa_jax.evaluation.session import (
  Clock,
  Job,
  Session,
  Settings,
  TokenCounter,
  footprint,
  run_job,
)
from hsa_jax.evaluation.suite import Asked
from hsa_jax.evaluation.token_suite import TokenSuite, Variant
from hsa_jax.inference import capacity_of, read_context
from hsa_jax.models import LanguageModel
from hsa_jax.models.attention import single_layers
from hsa_jax.models.compiled import jit_of_module
from hsa_jax.models.full import FullAttention
from hsa_jax.types import Carry, Limits

NAME = "effective_attention"
PROTOCOL = "attention-mass-v1"
REGIONS = ("begin", "needle", "context", "question")
NUM_BEGIN = 10  # tokens


def full_layers(cfg: ModelConfig) -> list[int]:
  """Depths of the layers with full attention, of a model without memory."""
  layers = enumerate(lower_layers(cfg))
  return [i for i, layer in layers if layer.mixer is Mixer.FULL]


class AttentionSuite(TokenSuite):
  """One job per haystack and length."""

  def check(self, asked: Asked) -> None:
    """Raises `FlagError` for models without full layers, or with a memory."""
    super().check(asked)
    model = asked.cfg.model
    if model.hsa.num_groups or not full_layers(model):
      raise FlagError(
        [
          f"--suites={NAME}: shows the attention of full layers in a model"
          " without memory, and this model has none; leave the suite out"
        ]
      )

  def run(self, session: Session, job: Job) -> dict[str, Any]:
    """Measures one job; returns its result line."""
    make = self.sample_maker(session, job)
    with Room(session, job.length) as room:

      def run_batch(
        session: Session, job: Job, numbers: Sequence[int]
      ) -> Iterator[dict[str, Any]]:
        for number in numbers:
          sample = make(number)
          yield {"sample": number, **measure(session, room, sample)}

      return run_job(
        session, job, run_batch=run_batch, summarise=summarise, batch=1
      )

  def describe(self, result: dict[str, Any]) -> str:
    """The layer that looks at the needle most."""
    best = max(result["attention"], key=lambda line: line["needle"])
    return (
      f"{NAME} {result['haystack']} {format_length(result['length'])}: most on"
      f" the needle is {best['needle']:.3f}, of layer {best['layer']};"
      f" {result['tokens_per_s']:,.0f} tokens/s"
    )


def _variants(settings: Settings) -> list[Variant]:
  return [
    Variant(
      SourceConfig(task=Task.NIAH, haystack=haystack, needle=settings.needle),
      PROTOCOL,
      str(haystack),
      str(settings.needle),
      stream="",
    )
    for haystack in settings.haystacks
  ]


SUITE = AttentionSuite(
  NAME,
  "attention mass and entropy of full layers while they answer S-NIAH",
  {"attention_s_niah": _variants},
)


def regions_of(sample: TokenSample, capacity: int) -> Int[np.ndarray, " U"]:
  """Index in `REGIONS` of every key of a sample, and of the room behind it."""
  needle, tail = _pieces(sample)
  region = np.full(capacity, REGIONS.index("context"), np.int32)
  region[:NUM_BEGIN] = REGIONS.index("begin")
  end = int(sample.answer.sources.max()) + 1
  region[needle.position : end] = REGIONS.index("needle")
  region[tail.position :] = REGIONS.index("question")
  return region


def _pieces(sample: TokenSample) -> tuple[Piece, ...]:
  """The needle, and the end with question and answer."""
  assert isinstance(sample.body, Splice), "needles interrupt a filler"
  return sample.body.pieces


def measure(
  session: Session, room: Room, sample: TokenSample
) -> dict[str, Any]:
  """Mass by region and entropy of each full layer, and what it cost."""
  model, start = session.model, _pieces(sample)[-1].position
  batch, length = session.settings.batch, sample.length

  def rows(first: int, stop: int) -> np.ndarray:
    return np.tile(sample.segment(first, stop), (batch, 1))

  count, clock = TokenCounter(session, 1), Clock()
  suffix, memory = read_context(
    session.prefill,
    rows,
    room.emptied(),
    length=start,
    keep=1,
    advance=count,
    room=length - start,
  )
  shares = _attention(
    model,
    rows(start, length),
    suffix.carry,
    np.int32(start),
    sample.answer.positions - 1 - start,
    regions_of(sample, capacity_of(length)),
  )
  shares = np.asarray(shares)
  count(length - start)
  cost = Cost(
    count.seconds,
    max(clock.lap() - count.seconds, 0.0),
    count.tokens,
    memory.nbytes(),
    footprint().device_bytes,
  )
  depths = full_layers(model.cfg)
  return {
    "depth": sample.depth,
    "attention": [
      _line(layer, share) for layer, share in zip(depths, shares, strict=True)
    ],
    "recipe": sample.describe(),
    **cost_fields(cost, 1, answer="suffix_s"),
  }


def _line(layer: int, share: Float[np.ndarray, " 5"]) -> dict[str, Any]:
  values = dict(zip((*REGIONS, "entropy_nats"), share.tolist(), strict=True))
  return {"layer": layer, **values}


@jit_of_module
def _attention(
  model: LanguageModel,
  tokens: Int[Array, "B T"],
  carry: Carry,
  position: Array,
  asking: Int[Array, " n"],
  region: Int[Array, " U"],
) -> Float[Array, "L 5"]:
  """Mass by region and entropy, a row for each full layer; of the first row."""
  x, found = model.embedding(tokens), []
  for block, state in single_layers(model.lower_blocks, carry):
    if isinstance(block.attention, FullAttention):
      normed = block.attention_norm(x)
      share = block.attention.weights(normed, state, position, asking)[0]
      inside = (region[None] == jnp.arange(len(REGIONS))[:, None]).astype(
        jnp.float32
      )
      mass = jnp.einsum("nqu,ru->r", share, inside)
      entropy = -jnp.sum(jax.scipy.special.xlogy(share, share))
      parts = jnp.concatenate([mass, entropy[None]])
      found.append(parts / (share.shape[0] * share.shape[1]))
    x, _ = block(x, state, position, Limits())
  return jnp.stack(found)


def summarise(
  session: Session, job: Job, rows: Sequence[dict]
) -> dict[str, Any]:
  """The result line of all samples.

  `attention` holds the means of each layer, with the interval of the needle's
  mass. `score` is that mass, averaged over layers.
  """
  table = np.array(
    [[[line[k] for k in _columns()] for line in r["attention"]] for r in rows]
  )
  seed, needle = session.settings.seed, REGIONS.index("needle")

  def interval(column: np.ndarray) -> scores.Interval:
    return scores.bootstrap_ratio(column, np.ones(len(column)), seed=seed)

  lines = []
  for i, first in enumerate(rows[0]["attention"]):
    low, high = interval(table[:, i, needle])
    line = _line(first["layer"], table[:, i].mean(axis=0))
    lines.append({**line, "needle_low": low, "needle_high": high})
  low, high = interval(table[:, :, needle].mean(axis=1))
  return {
    "score": float(table[:, :, needle].mean()),
    "ci_low": low,
    "ci_high": high,
    "metric": "needle_mass",
    "attention": lines,
    **summarise_cost(rows, answer="suffix_s"),
  }


def _columns() -> tuple[str, ...]:
  return (*REGIONS, "entropy_nats")
