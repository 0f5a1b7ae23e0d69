"""Each task solved from its rendered text alone, by someone who read the rule.

The solvers share nothing with the generators but the protocol.
"""

import collections
import re

import numpy as np
import pytest

from hsa_jax.config import SourceConfig, Task
from hsa_jax.data.sample import NOWHERE, render
from hsa_jax.data.tokens import frequent_words
from hsa_jax.data.tokens.catalog import make_task
from hsa_jax.data.tokens.mqar import power_law
from hsa_jax.data.tokens.parts import Permutation
from hsa_jax.data.tokens.variables import after_last_comma

from .cases import (
  COPIES,
  FWE,
  GCA_HOPS,
  GCA_KEYS,
  GCA_PASSKEY,
  MQAR,
  PASSKEY,
  TOKENIZER,
  VT,
  draw,
)
from .solvers import SOLVERS, prompt_and_gold

COPY_SPAN, SELECTIVE_COPY, INDUCTION = COPIES
MARKER = 255


@pytest.mark.parametrize(("source", "solve"), SOLVERS)
def test_the_rule_gives_the_gold_answer(source, solve):
  for seed in range(25):
    prompt, gold = prompt_and_gold(draw(source, seed, 1_500 + seed))
    assert solve(prompt) == gold


def test_every_chain_and_every_key_may_be_asked_for():
  many = SourceConfig(task=Task.MK_MQ, num_needles=4, num_questions=4)
  text = TOKENIZER.decode(render(draw(many)))
  asked = re.findall(r"numbers for ([A-Z]{5}) and ([A-Z]{5}) mentioned", text)
  assert len({key for pair in asked for key in pair}) == 4
  both = SourceConfig(task=Task.VT, num_needles=6, num_questions=2)
  answer = draw(both).answer
  names = re.findall("[A-Z]{5}", TOKENIZER.decode(answer.gold))
  assert len(names) == len(set(names)) == 6


def test_a_chain_of_one_is_asked_for_by_its_value():
  source = SourceConfig(
    task=Task.VT, num_needles=3, num_questions=2, chain_length=1
  )
  sample = draw(source)
  text = TOKENIZER.decode(render(sample))
  stated = dict(re.findall(r"\|VAR ([A-Z]{5}) = (\d{8})\|", text))
  asked = re.findall(r"the value (\d{8})\. Answer: ([A-Z]{5})", text)
  assert len(stated) == 3 and len(asked) == 2
  assert all(stated[name] == value for value, name in asked)
  chains = sample.describe()["chains"]
  assert {c["names"][0]: c["value"] for c in chains} == stated
  assert "," not in TOKENIZER.decode(sample.answer.gold)


def test_variables_are_shuffled():
  orders = set()
  for seed in range(60):
    recipe = draw(VT, seed).describe()
    chain = recipe["chains"][0]["names"]
    where = [n["name"] for n in recipe["needles"] if n["name"] in chain]
    orders.add(tuple(chain.index(name) for name in where))
  assert len(orders) == 6


def test_after_the_last_comma_is_the_last_name():
  sample = draw(VT)
  last = after_last_comma(sample.answer, TOKENIZER)
  whole = TOKENIZER.decode(sample.answer.gold)
  assert TOKENIZER.decode(last.gold) == whole[-6:]
  assert len(whole) == 3 * 6 + 2
  np.testing.assert_array_equal(last.positions, sample.answer.positions[-6:])
  with pytest.raises(ValueError, match="no comma"):
    after_last_comma(last, TOKENIZER)


def test_frequencies_follow_zipf():
  slots = 100_000
  counts = frequent_words.word_counts(slots)
  assert counts.sum() == slots
  ranks = np.arange(2, 12)
  expected = slots * ranks**-2.0 / (np.pi**2 / 6)
  np.testing.assert_array_equal(counts[1:11], np.floor(expected))
  assert counts[0] >= slots / (np.pi**2 / 6)
  least = frequent_words._MIN_SLOTS
  for few in (least, least + 1, 200, 5_000):
    assert (np.diff(frequent_words.word_counts(few)[:5]) < 0).all()


def test_rendered_counts_are_exact():
  sample = draw(FWE, length=9_000)
  recipe = sample.describe()
  text = TOKENIZER.decode(render(sample)[:-100])
  coded = text.split("coded words. ", 1)[1].split("\nQuestion")[0]
  found = collections.Counter(re.findall("[a-z]{5}", coded))
  for word, count in zip(recipe["words"], recipe["counts"], strict=True):
    assert found[word] == count
  expected = frequent_words.word_counts(recipe["slots"])
  assert sorted(found.values(), reverse=True) == expected[1:].tolist()


def test_frequent_words_are_spread():
  sample = draw(FWE, length=60_000)
  word = TOKENIZER.encode(sample.describe()["words"][0])
  tokens = render(sample)
  hits = np.flatnonzero(
    (np.lib.stride_tricks.sliding_window_view(tokens, 5) == word).all(axis=1)
  )
  counts, _ = np.histogram(hits, bins=10, range=(0, 60_000))
  assert len(hits) > 1_000
  assert counts.min() > 0.7 * len(hits) / 10


@pytest.mark.parametrize("size", [1, 2, 3, 17, 1_000, 4_097])
def test_a_permutation_is_one(size):
  places = Permutation(size, (1, 2, 3, 4))(np.arange(size))
  np.testing.assert_array_equal(np.sort(places), np.arange(size))


def test_a_permutation_depends_on_its_key_and_scatters():
  orders = [Permutation(1_000, (k, 2, 3, 4))(np.arange(1_000)) for k in (1, 5)]
  assert (orders[0] == orders[1]).mean() < 0.02
  steps = np.abs(np.diff(orders[0]))
  assert 280 < steps.mean() < 390  # a third of the size, if random
  with pytest.raises(ValueError, match="size = 0"):
    Permutation(0, (1, 2, 3, 4))


def test_passkey_is_hidden_and_its_last_id_asked_for():
  sample = draw(PASSKEY)
  tokens = render(sample).tolist()
  head = TOKENIZER.encode("|The passkey is:").tolist()
  at = next(i for i in range(1_500) if tokens[i : i + len(head)] == head)
  value = tokens[at + len(head) :][:10]
  assert tokens[at + len(head) + 10] == ord("|")
  question = TOKENIZER.encode("|What is the passkey? The passkey is").tolist()
  assert tokens[-11 - len(question) :] == [*question, *value, 256]
  assert sample.answer.gold.tolist() == value[-1:]


@pytest.mark.parametrize(
  ("source", "needle", "question", "width"),
  [
    (GCA_PASSKEY, ("|The passkey is:", "|"), "? The passkey is", 10),
    (GCA_KEYS, ("magic numbers for ", " is ", "|"), "number for ", 5),
    (GCA_HOPS, ("|DEF ", "->", "|"), "|TRACE ", 5),
  ],
)
def test_needles_of_gca_hold_the_answer(source, needle, question, width):
  """Found in the rendered ids alone: from the question along the needles."""
  for seed in range(10):
    sample = draw(source, seed)
    ids = render(sample).tolist()
    head, *rest = (TOKENIZER.encode(part).tolist() for part in needle)
    stated = []
    for at in range(len(ids)):
      names, place = [], at + len(head)
      if ids[at:place] != head:
        continue
      for part in rest:
        names.append(tuple(ids[place : place + width]))
        place += width + len(part)
        if ids[place - len(part) : place] != part:
          names = []
          break
      stated += [names] if names else []
    assert len(stated) == source.num_needles
    asking = TOKENIZER.encode(question).tolist()
    ends = [i for i in range(len(ids)) if ids[i - len(asking) : i] == asking]
    place, want = ends[-1], []
    if source is GCA_PASSKEY:
      want = [stated[0][0]]
    else:
      links, at = dict(stated), tuple(ids[place : place + width])
      for _ in range(1 if source is GCA_KEYS else 2):
        at = links[at]
        want.append(at)
    assert sample.answer.gold.tolist() == [i for name in want for i in name]
    assert ids[-1] == 256


def test_mqar_queries_are_answered_by_their_pairs():
  for seed in range(10):
    sample = draw(MQAR, seed)
    tokens, at = render(sample), sample.describe()["position"]
    pairs = tokens[at : at + 32].reshape(16, 2)
    assert (pairs[:, 0] < 128).all() and (pairs[:, 1] >= 128).all()
    values = dict(pairs.tolist())
    assert len(values) == 16
    asked = tokens[sample.answer.positions - 1]
    assert len(set(asked.tolist())) == 8
    assert sample.answer.gold.tolist() == [values[k] for k in asked.tolist()]
    # No key stands anywhere but in its pair and before an answer.
    assert np.isin(tokens, list(values)).sum() == 16 + 8


def test_gaps_follow_a_power_law():
  law = power_law(64)
  assert law.sum() == pytest.approx(1)
  np.testing.assert_allclose(law[0] / law[9], 10**0.99)


def test_span_and_induction_repeat_what_followed_the_marker():
  for source, size in ((COPY_SPAN, 16), (INDUCTION, 1)):
    sample = draw(source)
    tokens = render(sample)
    first, second = np.flatnonzero(tokens == MARKER)
    np.testing.assert_array_equal(
      tokens[first + 1 : first + 1 + size], sample.answer.gold
    )
    assert sample.answer.positions[0] == second + 1


def test_scattered_ids_are_repeated_in_their_order():
  sample = draw(SELECTIVE_COPY)
  tokens = render(sample)
  (marker,) = np.flatnonzero(tokens == MARKER)
  body = tokens[:marker]
  np.testing.assert_array_equal(body[body >= 128], sample.answer.gold)
  assert np.ptp(np.flatnonzero(body >= 128)) > 500


def test_counts_that_do_not_fit_the_task():
  cases = {
    (Task.NIAH, 2, 3): "num_questions = 3: must be in 1..num_needles = 2",
    (Task.MK_MQ, 6, 3): "num_questions = 3: must be even",
    (Task.VT, 5, 1): "num_needles = 5: must be a multiple of chain_length = 3",
    (Task.VT, 6, 3): r"num_questions = 3: must be in 1\.\.2 chains",
    (Task.MQAR, 200, 1): r"num_needles = 200, .* 1\.\.128 keys",
  }
  for (task, needles, asked), message in cases.items():
    source = SourceConfig(task=task, num_needles=needles, num_questions=asked)
    with pytest.raises(ValueError, match=message):
      make_task(source, TOKENIZER)


def test_only_names_and_values_have_a_source():
  """Commas of a chain and the words of FWE stand in no single place."""
  commas = draw(VT).answer
  np.testing.assert_array_equal(
    commas.sources == NOWHERE, commas.gold == ord(",")
  )
  assert (draw(FWE).answer.sources == NOWHERE).all()
