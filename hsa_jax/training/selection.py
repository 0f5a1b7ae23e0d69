"""What the tokens select: four numbers that tell whether retrieval learns.

They need every selection of a row, which the training step does not return, so
a separate forward pass of a few held-out rows makes them, now and then.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from hsa_jax.config import TrainConfig
from hsa_jax.data.pipeline import Batch
from hsa_jax.models import LanguageModel
from hsa_jax.models.hsa import SequenceMemory
from hsa_jax.models.marks import (
  asks_ahead,
  stream_chunk,
  stream_length,
  stream_stride,
)
from hsa_jax.ops.select import retrieval_scores
from hsa_jax.parallel import local_parts, place_batch
from hsa_jax.training import schedule
from hsa_jax.training.hooks import Hook, Moment
from hsa_jax.training.state import TrainState
from hsa_jax.types import Selection


class Search(NamedTuple):
  """One search of one group.

  Attributes:
    query: retrieval queries, `[B r G R]`.
    landmarks: of the chunks, `[B C G R]`.
    num_visible: chunks that each query may choose from, `[r]`.
    found: what was chosen, `[B r G K]`.
  """

  query: jax.Array
  landmarks: jax.Array
  num_visible: jax.Array
  found: Selection


class SelectionStats(NamedTuple):
  """Means over rows, tokens that retrieve, and retrieval heads.

  Attributes:
    score_entropy_nats: of the softmax over the scores of all visible chunks,
      where there is one.
    score_entropy_share: the same over its maximum, the logarithm of the number
      of visible chunks, where there are two; 1 is no preference.
    valid_slots_share: slots that hold a chunk.
    distance_chunks: from the token's chunk back to a selected one; 1 is the
      chunk before.
    neighbour_overlap_share: of a token's chunks, those that the token which
      retrieved before it selected too.
  """

  score_entropy_nats: Float[Array, ""]
  score_entropy_share: Float[Array, ""]
  valid_slots_share: Float[Array, ""]
  distance_chunks: Float[Array, ""]
  neighbour_overlap_share: Float[Array, ""]


class Recorder:
  """A memory that remembers what it was asked."""

  def __init__(self, memory: SequenceMemory):
    self._memory = memory
    self.searches: list[Search] = []

  def search(
    self, query: jax.Array, *, num_visible: jax.Array, top_k: int
  ) -> Selection:
    """As the memory itself."""
    found = self._memory.search(query, num_visible=num_visible, top_k=top_k)
    landmarks = self._memory.block.landmarks
    self.searches.append(Search(query, landmarks, num_visible, found))
    return found

  def read(
    self,
    query: jax.Array,
    selection: Selection,
    weights: jax.Array | None,
    *,
    sink: int,
  ) -> jax.Array:
    """As the memory itself."""
    return self._memory.read(query, selection, weights, sink=sink)


def selection_stats(
  search: Search, own_chunk: Int[Array, " r"]
) -> SelectionStats:
  """The numbers of one search.

  Args:
    search: of one group; the rows may have any number of chunks, none as well.
    own_chunk: index of the chunk that each token or landmark which retrieves
      lies in.
  """
  index, _, valid = search.found
  nats, share = _entropies(search)
  distance = own_chunk[None, :, None, None] - index
  before, after = index[:, :-1, :, None, :], index[:, 1:, :, :, None]
  both = valid[:, :-1, :, None, :] & valid[:, 1:, :, :, None]
  repeated = jnp.any((before == after) & both, axis=-1)
  return SelectionStats(
    score_entropy_nats=nats,
    score_entropy_share=share,
    valid_slots_share=jnp.mean(valid.astype(jnp.float32)),
    distance_chunks=_mean(distance, valid),
    neighbour_overlap_share=_mean(repeated, valid[:, 1:]),
  )


def look(
  model: LanguageModel, tokens: jax.Array, top_k: jax.Array | None = None
) -> list[SelectionStats]:
  """Statistics of each group on rows read from their beginning.

  Windows have their full size, whatever their schedule says.

  Args:
    model: with a memory.
    tokens: `[B T]`.
    top_k: slots in use, by the schedule of K; None: all.
  """
  hsa = model.cfg.hsa
  rows, length = tokens.shape
  hidden, _ = model.lower(tokens, model.init_carry(rows, length))
  memory = Recorder(
    SequenceMemory(
      model.encode(hidden), hsa.implementation, top_k, aligned=True
    )
  )
  carry = model.init_upper_carry(rows, length)
  model.upper(hidden, memory, carry, position=0)
  cfg, stride = model.cfg, stream_stride(model.cfg)
  first = stride - 1 if asks_ahead(cfg) else 0
  retrieving = jnp.arange(first, stream_length(cfg, length), stride)
  own = retrieving // stream_chunk(cfg)
  return [selection_stats(search, own) for search in memory.searches]


class Diagnose(Hook):
  """Reports `hsa/` metrics every `train.diagnose_every` steps.

  The rows are the first of the validation text, one for each share of a batch
  that devices hold, so that numbers of different steps compare.
  """

  def __init__(
    self,
    batch: Batch,
    cfg: TrainConfig,
    *,
    report: Callable[[int, dict[str, float]], None],
    mesh: Mesh,
  ):
    """Compiles at the first call.

    Args:
      batch: validation rows of this process.
      cfg: of the run.
      report: takes the step and the metrics.
      mesh: the device mesh.
    """
    self._tokens = batch.tokens[: len(local_parts(mesh))]
    self._cfg = cfg
    self._report = report
    self._mesh = mesh
    self._look = jax.jit(look)

  def wants(self, step: int, moment: Moment) -> bool:
    del moment
    every = self._cfg.diagnose_every
    return every > 0 and step % every == 0

  def on_state(self, step: int, state: TrainState) -> None:
    top_k = schedule.value_at(self._cfg.top_k_schedule, step - 1)
    tokens = place_batch(self._tokens, self._mesh)
    groups = jax.device_get(self._look(state.model, tokens, top_k))
    self._report(step, _named(groups))


def can_diagnose(model: Any) -> bool:
  """Whether the model selects chunks."""
  return isinstance(model, LanguageModel) and model.cfg.hsa.num_groups > 0


def _named(groups: list[SelectionStats]) -> dict[str, float]:
  """`hsa/distance_chunks`, or `hsa/group1_distance_chunks` of several."""
  values = {}
  for i, stats in enumerate(groups):
    prefix = f"hsa/group{i}_" if len(groups) > 1 else "hsa/"
    values |= {f"{prefix}{k}": float(v) for k, v in stats._asdict().items()}
  return values


def _entropies(search: Search) -> tuple[jax.Array, jax.Array]:
  """Mean entropy in nats, and as a share of its maximum."""
  num_chunks = search.landmarks.shape[1]
  if num_chunks == 0:
    return jnp.zeros(()), jnp.zeros(())
  scores = retrieval_scores(search.query, search.landmarks)
  visible = jnp.arange(num_chunks)[None] < search.num_visible[:, None]
  mask = visible[None, :, None]
  # Finite, so that a row that sees nothing gives no NaN; it is left out below.
  log_p = jax.nn.log_softmax(jnp.where(mask, scores, -1e30), axis=-1)
  entropy = -jnp.sum(jnp.where(mask, jnp.exp(log_p) * log_p, 0.0), axis=-1)
  count = search.num_visible[None, :, None]
  most = jnp.log(jnp.maximum(count, 2).astype(jnp.float32))
  return _mean(entropy, count >= 1), _mean(entropy / most, count >= 2)


def _mean(values: jax.Array, mask: jax.Array) -> jax.Array:
  """Mean where the mask is set; 0 if it is nowhere."""
  mask = jnp.broadcast_to(mask, values.shape)
  total = jnp.sum(jnp.where(mask, values, 0).astype(jnp.float32))
  return total / jnp.maximum(jnp.sum(mask), 1)
