"""Texts are those of one plain forward pass per token."""

import pytest

from tests.evaluation.helpers import MODEL

from .helpers import SWA, Asked, forget, greedy, harness_model, text


def ask(model, *requests):
  asked = [Asked(request) for request in requests]
  return model.generate_until(asked, forget, quiet=True)


@pytest.mark.parametrize(
  ("cfg", "length"),
  [
    (MODEL, 0),
    (MODEL, 5),
    (MODEL, 150),
    pytest.param(SWA, 150, marks=pytest.mark.slow),
  ],
)
def test_greedy_text(cfg, length):
  prompt = text(length, length)
  (answer,) = ask(harness_model(cfg), (prompt, {"max_gen_toks": 12}))
  assert answer == greedy(prompt, 12, cfg)


def test_it_ends_before_the_first_stop():
  prompt = text(100, 1)
  whole = greedy(prompt, 20)
  stop = whole[6:8]
  place = whole.index(stop)
  limits = {"max_gen_toks": 20}
  answers = ask(
    harness_model(),
    (prompt, {"until": [stop], **limits}),
    (prompt, {"until": ["never here", stop], **limits}),
    (prompt, {"until": "never here", **limits}),
    (prompt, {"until": whole[0], **limits}),
  )
  assert answers == [whole[:place], whole[:place], whole, ""]


def test_equal_prompts_are_continued_once():
  seen = []
  request = Asked((text(30), {"max_gen_toks": 4}))
  other = Asked((text(31), {"max_gen_toks": 4}))
  model = harness_model()
  answers = model.generate_until(
    [request, other, request],
    lambda name, args, answer: seen.append((name, args, answer)),
    quiet=True,
  )
  assert answers[0] == answers[2] == greedy(text(30), 4)
  assert answers[1] == greedy(text(31), 4)
  assert seen[0] == ("generate_until", other.args, answers[1])
  assert len(seen) == 3


def test_repeated_draws_differ_and_can_be_repeated():
  request = (text(30), {"do_sample": True, "temperature": 3, "max_gen_toks": 9})
  first = ask(harness_model(), *[request] * 4)
  assert len(set(first)) > 1
  assert ask(harness_model(), *[request] * 4) == first
