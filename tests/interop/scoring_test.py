"""Every answer is that of the plain forward pass, whatever its length."""

import jax.numpy as jnp
import numpy as np
import pytest

from hsa_jax.inference import Prefill
from hsa_jax.interop import HarnessModel, Reader, Span, Ways, score_spans
from hsa_jax.memory import Home
from hsa_jax.models import LanguageModel
from tests.evaluation.helpers import MODEL, build_model

from .helpers import (
  BYTES,
  SEGMENT,
  SWA,
  Asked,
  forget,
  harness_model,
  likelihood,
  log_probs,
  reader,
  text,
)

# Shorter than a segment, of a segment, and streamed; one byte to many.
PAIRS = [
  ("", "a"),
  ("abc", " def"),
  (text(40), text(24, 1)),
  (text(SEGMENT - 1, 2), "xy"),
  (text(SEGMENT, 3), "x"),
  (text(3 * SEGMENT + 5, 4), " the end"),
  (text(3 * SEGMENT, 5), text(90, 6)),
]


def ask(model, pairs):
  requests = [Asked(pair) for pair in pairs]
  return model.loglikelihood(requests, forget, quiet=True)


@pytest.mark.parametrize(
  "cfg",
  [
    pytest.param(MODEL, id="hsa"),
    pytest.param(SWA, id="swa", marks=pytest.mark.slow),
  ],
)
def test_likelihoods_are_those_of_the_forward_pass(cfg):
  pairs = PAIRS if cfg is MODEL else PAIRS[1:-1:2]
  answers = ask(harness_model(cfg), pairs)
  for pair, (total, is_greedy) in zip(pairs, answers, strict=True):
    expected = likelihood(*pair, cfg)
    assert total == pytest.approx(expected[0], abs=1e-4), pair
    assert is_greedy == expected[1]


@pytest.mark.parametrize("length", [20, 150])
def test_a_greedy_continuation_is_recognised(length):
  tokens = list(BYTES.encode(text(length)))
  for _ in range(3):
    best = np.argmax(log_probs(tokens)[-1, : BYTES.vocab_size])
    tokens.append(int(best))
  inputs, targets = np.array(tokens[:-1]), np.array(tokens[-3:])
  for wrong in (None, 0, 2):
    asked = targets.copy()
    if wrong is not None:
      asked[wrong] = (asked[wrong] + 1) % 256
    # The inputs stay: only what is compared with the outputs changes.
    found = score_spans(reader(), [Span(inputs, asked)], vocab_size=258)
    assert next(found)[1].greedy == (wrong is None)


@pytest.mark.slow
def test_homes_agree():
  pairs = PAIRS[-2:]
  host = ask(harness_model(), pairs)
  for home in (Home.DEVICE, Home.DISK):
    np.testing.assert_allclose(
      ask(harness_model(home=home), pairs), host, atol=1e-5
    )


def test_many_outputs_are_read_as_a_sequence():
  whole = text(700, 9)
  (total,) = harness_model().loglikelihood_rolling(
    [Asked((whole,))], forget, quiet=True
  )
  assert total == pytest.approx(likelihood("", whole)[0], abs=1e-3)


def test_rolling_equals_the_chain_of_its_parts():
  texts = [text(50, 10), text(130, 11), "", "a"]
  answers = harness_model().loglikelihood_rolling(
    [Asked((t,)) for t in texts], forget, quiet=True
  )
  for whole, total in zip(texts, answers, strict=True):
    expected = likelihood("", whole)[0] if whole else 0.0
    assert total == pytest.approx(expected, abs=1e-4)


class Uniform(LanguageModel):
  """Every byte is as likely as any other, and nothing else follows."""

  def head(self, hidden):
    known = jnp.where(jnp.arange(self.cfg.vocab_size) < 256, 0.0, -1e9)
    return jnp.broadcast_to(known, (*hidden.shape[:-1], len(known)))


def uniform() -> LanguageModel:
  model = Uniform.__new__(Uniform)
  model.__dict__.update(build_model().__dict__)
  return model


@pytest.mark.parametrize(
  "length", [30, pytest.param(600, marks=pytest.mark.slow)]
)
def test_a_uniform_model_has_eight_bits_per_byte(length):
  model = HarnessModel(Reader(uniform(), Ways(segment=SEGMENT)), BYTES)
  (total,) = model.loglikelihood_rolling(
    [Asked((text(length),))], forget, quiet=True
  )
  assert -total / np.log(2) / length == pytest.approx(8.0, abs=1e-6)


def test_shared_inputs_are_read_once(monkeypatch):
  calls = []
  run = Prefill.__call__
  monkeypatch.setattr(
    Prefill,
    "__call__",
    lambda self, *args: calls.append(1) or run(self, *args),
  )
  context = text(200, 12)
  pairs = [(context, letter) for letter in "abcd"]
  answers = ask(harness_model(), pairs)
  assert len(calls) == -(-len(context) // SEGMENT)
  for pair, (total, _) in zip(pairs, answers, strict=True):
    assert total == pytest.approx(likelihood(*pair)[0], abs=1e-4)


def test_lengths_share_their_programs():
  fresh = Reader(build_model(), Ways(segment=SEGMENT))
  spans = [
    Span(BYTES.encode(text(n)), BYTES.encode(text(5, n)))
    for n in range(SEGMENT + 1, SEGMENT + 60, 6)
  ]
  assert len(list(score_spans(fresh, spans, vocab_size=258))) == len(spans)
  (prefill,) = fresh._prefills.values()
  assert prefill.num_compilations == 1


def test_longest_first_and_every_span_once():
  spans = [Span(BYTES.encode(text(n)), BYTES.encode("a")) for n in (5, 90, 30)]
  spans.append(Span(BYTES.encode("ab"), np.zeros(0, np.int32)))
  order = [i for i, _ in score_spans(reader(), spans, vocab_size=258)]
  assert order == [3, 1, 2, 0]


def test_a_wrong_segment_or_home_is_refused():
  with pytest.raises(ValueError, match="segment = 30: must be a multiple of 4"):
    Reader(build_model(), Ways(segment=30))
  with pytest.raises(ValueError, match="home = sharded"):
    Reader(build_model(), Ways(home=Home.SHARDED))
