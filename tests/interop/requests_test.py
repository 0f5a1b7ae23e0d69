"""Requests become tokens by the harness's own conventions."""

import numpy as np
import pytest

from hsa_jax.inference import Sampling
from hsa_jax.interop import (
  Generation,
  RequestError,
  pair_span,
  read_generation,
  rolling_span,
)
from hsa_jax.interop.reader import bucket
from hsa_jax.interop.requests import first_stop

from .helpers import BYTES


class Pairs:
  """Two letters are one id, as far as they go: a text is not its halves."""

  eos_id = 0

  def encode(self, text):
    pairs = [text[i : i + 2] for i in range(0, len(text), 2)]
    codes = [sum(ord(c) << 8 * i for i, c in enumerate(p)) for p in pairs]
    return np.array(codes, np.int32)


def test_spaces_at_the_end_of_a_context_are_scored():
  span = pair_span(BYTES, "ab  ", "c")
  assert bytes(span.inputs.tolist()) == b"ab  "
  assert bytes(span.targets.tolist()) == b"  c"


def test_an_empty_context_is_the_end_of_the_text_before():
  for context in ("", "  "):
    span = pair_span(BYTES, context, "ab")
    text = [*context.encode(), *b"ab"]
    assert span.inputs.tolist() == [BYTES.eos_id, *text[:-1]]
    assert span.targets.tolist() == text


def test_rolling_scores_every_token():
  span = rolling_span(BYTES, "abc")
  assert span.inputs.tolist() == [BYTES.eos_id, *b"ab"]
  assert span.targets.tolist() == list(b"abc")
  assert len(rolling_span(BYTES, "").targets) == 0


def test_a_pair_is_tokenized_as_one_text():
  ids = Pairs().encode
  span = pair_span(Pairs(), "abc", "def")  # ab|c alone, ab|cd|ef together
  assert span.inputs.tolist() == ids("abc").tolist()
  assert span.targets.tolist() == ids("ef").tolist()
  # Nothing would be left of the continuation: then it stands alone.
  span = pair_span(Pairs(), "abc", "d")
  assert span.targets.tolist() == ids("d").tolist()
  assert span.inputs.tolist() == ids("abc").tolist()


def test_nothing_to_score():
  span = pair_span(BYTES, "ab", "")
  assert len(span.targets) == 0 and span.inputs.tolist() == list(b"ab")


@pytest.mark.parametrize(
  ("settings", "expected"),
  [
    ({}, Generation()),
    ({"until": "\n"}, Generation(("\n",))),
    ({"until": ["a", ""], "max_new_tokens": 3}, Generation(("a",), 3)),
    ({"max_gen_toks": 5, "max_tokens": 9}, Generation((), 5)),
    ({"do_sample": False, "temperature": 0.7}, Generation()),
    ({"temperature": 0.0, "num_beams": 1}, Generation()),
    ({"temperature": 0.5}, Generation(sampling=Sampling(0.5, seed=7))),
    (
      {"do_sample": True, "top_k": 4, "top_p": 0.9},
      Generation(sampling=Sampling(1.0, 4, 0.9, 7)),
    ),
  ],
)
def test_generation_settings(settings, expected):
  assert read_generation(settings, seed=7) == expected


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"num_beams": 4}, "num_beams = 4: not supported; there are do_sample"),
    ({"max_gen_toks": 0}, "max_gen_toks = 0"),
    ({"do_sample": True, "top_p": 0}, "top_p = 0.0: must not be negative"),
  ],
)
def test_settings_that_cannot_be_met_are_refused(settings, message):
  with pytest.raises(RequestError, match=message):
    read_generation(settings, seed=0)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_stop_is_found_however_it_arrives(size):
  text, until = "abcabcd--ab", ("cd", "--")
  whole = first_stop(text, until)
  assert whole == text.index("cd")
  seen = ""
  for i in range(0, len(text), size):
    known, seen = len(seen), seen + text[i : i + size]
    if (place := first_stop(seen, until, known)) is not None:
      assert place == whole
      return
  pytest.fail("not found")


def test_no_stop():
  assert first_stop("abc", ()) is None
  assert first_stop("abc", ("d",)) is None


def test_buckets_are_few_and_near():
  sizes = {bucket(n, 16) for n in range(1, 10_000)}
  assert len(sizes) <= 20
  for n in range(1, 10_000):
    assert max(n, 16) <= bucket(n, 16) <= max(1.5 * n, 16)
