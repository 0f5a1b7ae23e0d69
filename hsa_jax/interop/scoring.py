"""Log-likelihoods of spans, each input read once."""

import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from hsa_jax.inference.sequence import SequencePart
from hsa_jax.interop.reader import Reader
from hsa_jax.interop.requests import Span
from hsa_jax.models import LanguageModel
from hsa_jax.models.compiled import jit_of_module
from hsa_jax.ops.loss import cross_entropy

_SIZES = (16, 64, 256)  # outputs whose logits exist at the same time
_BLOCK = _SIZES[-1]


class Score(NamedTuple):
  """How likely the targets of a span are.

  Attributes:
    log_likelihood: their sum of log-probabilities, in nats; over all ids that
      the model has, as in training.
    greedy: whether each is the most likely id that the tokenizer knows.
  """

  log_likelihood: float
  greedy: bool


class _Text(NamedTuple):
  """Inputs, and the spans that share them."""

  inputs: np.ndarray
  spans: tuple[int, ...]


def score_spans(
  reader: Reader, spans: Sequence[Span], *, vocab_size: int
) -> Iterator[tuple[int, Score]]:
  """Scores spans in the order that suits the device, longest first.

  Spans with the same inputs cost one reading: so do the one-letter answers of
  a multiple-choice question behind a long context.

  Args:
    reader: the model.
    spans: what to score; one without targets is certain.
    vocab_size: ids below it count for `Score.greedy`.

  Yields:
    The index of a span and its score, as soon as it is known.
  """
  for index, span in enumerate(spans):
    if not len(span.targets):
      yield index, Score(0.0, True)
  texts = _distinct(spans)
  score = functools.partial(_score_part, reader.model, vocab_size=vocab_size)
  for text in (t for t in texts if not reader.is_short(len(t.inputs))):
    need = max(len(spans[i].targets) for i in text.spans)
    scores = {i: Score(0.0, True) for i in text.spans}
    for part in reader.read_long(text.inputs, need):
      for i in text.spans:
        scores[i] = _join(scores[i], score(part, 0, spans[i]))
    yield from scores.items()
  short = [t for t in texts if reader.is_short(len(t.inputs))]
  for start in range(0, len(short), reader.ways.batch):
    batch = short[start : start + reader.ways.batch]
    part = reader.read_rows([t.inputs for t in batch])
    for row, text in enumerate(batch):
      for i in text.spans:
        yield i, score(part, row, spans[i])


def _distinct(spans: Sequence[Span]) -> list[_Text]:
  """Inputs without repetition, longest first."""
  shared: dict[bytes, list[int]] = {}
  for index, span in enumerate(spans):
    if len(span.targets):
      shared.setdefault(span.inputs.tobytes(), []).append(index)
  texts = [_Text(spans[ids[0]].inputs, tuple(ids)) for ids in shared.values()]
  return sorted(texts, key=lambda t: -len(t.inputs))


def _join(one: Score, other: Score) -> Score:
  return Score(
    one.log_likelihood + other.log_likelihood, one.greedy and other.greedy
  )


def _score_part(
  model: LanguageModel,
  part: SequencePart,
  row: int,
  span: Span,
  *,
  vocab_size: int,
) -> Score:
  """The targets of a span whose outputs lie in `part`."""
  first = len(span.inputs) - len(span.targets)
  begin, end = max(part.start, first), min(part.stop, len(span.inputs))
  total, greedy = 0.0, True
  for start in range(begin, end, _BLOCK):
    real = span.targets[start - first : min(start + _BLOCK, end) - first]
    size = next(size for size in _SIZES if size >= len(real))
    targets = np.zeros(size, np.int32)
    targets[: len(real)] = real
    states = _states(part.hidden, row, start - part.start, size=size)
    nats, best = _compare(model, states, targets, vocab_size=vocab_size)
    total += float(np.sum(np.asarray(nats)[: len(real)], dtype=np.float64))
    greedy &= bool(np.all(np.asarray(best)[: len(real)]))
  return Score(-total, greedy)


@functools.partial(jax.jit, static_argnames="size")
def _states(
  hidden: Float[Array, "B T D"],
  row: Int[Array, ""] | int,
  begin: Int[Array, ""] | int,
  *,
  size: int,
) -> Float[Array, "A D"]:
  """`size` outputs of a row; those beyond its end are filling."""
  where = jnp.minimum(begin + jnp.arange(size), hidden.shape[1] - 1)
  return hidden[row, where]


@functools.partial(jit_of_module, static_argnames=("vocab_size",))
def _compare(
  model: LanguageModel,
  states: Float[Array, "A D"],
  targets: Int[Array, " A"],
  *,
  vocab_size: int,
) -> tuple[Float[Array, " A"], Bool[Array, " A"]]:
  """Loss of each target, and whether it is the most likely known id."""
  logits = model.head(states[None])[0]
  best = jnp.argmax(logits[:, :vocab_size], axis=-1)
  return cross_entropy(logits, targets), best == targets
