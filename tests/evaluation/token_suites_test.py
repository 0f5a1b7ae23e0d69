"""The token-level suites: what they refuse, and that their scores are honest.

The engines are tested against whole forward passes elsewhere. Here a solver
takes the place of the model, so a broken scorer or a wrong gold cannot pass.
"""

import dataclasses
import re

import numpy as np
import pytest

from hsa_jax.config import Haystack, Needle
from hsa_jax.data.sample import render
from hsa_jax.evaluation import FlagError, forced, generated
from hsa_jax.evaluation.copying import SUITE as COPYING
from hsa_jax.evaluation.cost import Cost
from hsa_jax.evaluation.gca import SUITE as GCA
from hsa_jax.evaluation.hsa_ruler import SUITE as HSA_RULER
from hsa_jax.evaluation.lengths import SampleCount
from hsa_jax.evaluation.mqar import SUITE as MQAR
from hsa_jax.evaluation.passkey import SUITE as PASSKEY
from hsa_jax.evaluation.results import ResultStore
from hsa_jax.evaluation.suite import asked_of
from hsa_jax.memory import MemoryBytes

from .helpers import make_session

FORCED = [
  (suite, task)
  for suite in (HSA_RULER, PASSKEY, GCA, MQAR, COPYING)
  for task in suite.tasks
  if task != "passkey_text"
]
forced_tasks = pytest.mark.parametrize(
  ("suite", "task"), FORCED, ids=[task for _, task in FORCED]
)
COST = Cost(1.0, 1.0, 1, MemoryBytes(0, 0, 0), 0)


@pytest.fixture(scope="module")
def session(tmp_path_factory):
  return make_session(tmp_path_factory.mktemp("suites"))


def asking(session, *tasks, **settings):
  defaults = {"tasks": tasks, "lengths": (1_500,), **settings}
  settings = dataclasses.replace(session.settings, **defaults)
  return dataclasses.replace(session, settings=settings)


def run_with(monkeypatch, session, suite, task, predict, **settings):
  """The result of a task where `predict(sample)` answers for the model."""

  def run_batch(session, numbers, samples, memory, journal):
    return [forced.Outcome(predict(s), None, {}) for s in samples], COST

  monkeypatch.setattr(forced, "run_batch", run_batch)
  session = asking(session, task, **settings)
  (job,) = suite.jobs(asked_of(session))
  folder = session.results.path
  fresh = folder.parent / f"{task}-{len(list(folder.parent.iterdir()))}"
  results = ResultStore(fresh, session.results.info)
  session = dataclasses.replace(session, results=results)
  return suite.run(session, job)


@forced_tasks
def test_an_oracle_is_always_right(monkeypatch, session, suite, task):
  """It reads the answer off the rendered tokens, not off the gold."""

  def oracle(sample):
    return render(sample)[sample.answer.positions]

  result = run_with(monkeypatch, session, suite, task, oracle)
  assert result["score"] == result["token_accuracy"] == 1
  assert result["num_correct"] == result["num_samples"] == 3
  assert result["metric"] == "exact_match" and result["ci_low"] < 1


@forced_tasks
def test_one_wrong_token_is_wrong(monkeypatch, session, suite, task):
  def nearly(sample):
    guess = sample.answer.gold.copy()
    guess[-1] += 1
    return guess

  result = run_with(monkeypatch, session, suite, task, nearly)
  assert result["score"] == 0


@pytest.mark.parametrize(
  ("suite", "task", "low", "high", "chance"),
  [
    (HSA_RULER, "s_niah", ord("0"), ord("9"), 1 / 10),
    (MQAR, "mqar", 128, 255, 1 / 128),
    (COPYING, "copy_span", 128, 254, 1 / 127),
    (COPYING, "induction", 128, 254, 1 / 127),
    (PASSKEY, "passkey_ids", 0, 255, 1 / 256),
    (GCA, "gca_passkey", 0, 255, 1 / 256),
  ],
)
def test_guessing_scores_chance(
  monkeypatch, session, suite, task, low, high, chance
):
  """Uniform guesses among the ids that an answer can have."""
  rng = np.random.default_rng(0)

  def guess(sample):
    return rng.integers(low, high + 1, len(sample.answer.gold))

  count = 400
  result = run_with(
    monkeypatch,
    session,
    suite,
    task,
    guess,
    samples=(SampleCount(1, count),),
  )
  tokens = count * len(result_gold(session, suite, task))
  spread = 4 * np.sqrt(chance * (1 - chance) / tokens)
  assert result["token_accuracy"] == pytest.approx(chance, abs=spread)
  assert result["score"] <= chance + 4 * np.sqrt(chance / count)


def result_gold(session, suite, task):
  """The gold of any one sample."""
  session = asking(session, task)
  (job,) = suite.jobs(asked_of(session))
  maker = getattr(suite, "_forced", suite)
  return maker.sample_maker(session, job)(0).answer.gold


def test_random_names_score_chance(monkeypatch, session):
  """VT: separators are given away, letters are guessed."""
  rng = np.random.default_rng(0)

  def guess(sample):
    gold = sample.answer.gold.copy()
    letters = gold > ord(" ") + 20
    gold[letters] = rng.integers(ord("A"), ord("Z") + 1, letters.sum())
    return gold

  result = run_with(monkeypatch, session, HSA_RULER, "vt", guess)
  assert result["score"] == 0
  assert result["token_accuracy"] == pytest.approx(
    5 / 20 + 15 / 20 / 26, abs=0.1
  )


def test_the_two_scores_of_vt_share_their_samples(session):
  session = asking(session, "vt", "vt_last")
  jobs = HSA_RULER.jobs(asked_of(session))
  assert [(job.task, job.needle) for job in jobs] == [
    ("vt", "all"),
    ("vt_last", "last"),
  ]
  whole, last = (HSA_RULER.sample_maker(session, j)(1) for j in jobs)
  np.testing.assert_array_equal(render(whole), render(last))
  np.testing.assert_array_equal(last.answer.gold, whole.answer.gold[-6:])
  assert len(whole.answer.gold) == 20


def test_the_last_name_alone_decides_vt_last(monkeypatch, session):
  def only_the_end(sample):
    guess = np.zeros_like(sample.answer.gold)
    guess[-6:] = sample.answer.gold[-6:]
    return guess

  last = run_with(monkeypatch, session, HSA_RULER, "vt_last", only_the_end)
  whole = run_with(monkeypatch, session, HSA_RULER, "vt", only_the_end)
  assert (last["score"], whole["score"]) == (1, 0)


class Said:
  """A model that answers every prompt with a text."""

  def __init__(self, say):
    self._say = say

  def __call__(self, session, numbers, prompts, memory, journal):
    encode = session.tokenizer.encode
    texts = [self._say(prompt) for prompt in prompts]
    return [generated.Reply(encode(t), True, None, {}) for t in texts], COST


@pytest.mark.parametrize(
  ("say", "score"),
  [
    (lambda prompt: f" {prompt.references[0]}. Remember", 1),
    (lambda prompt: f" {int(prompt.references[0]) + 1}", 0),
    (lambda prompt: f" {prompt.references[0]}0", 0),
    (lambda prompt: " the pass key", 0),
  ],
)
def test_passkey_in_prose(monkeypatch, session, tmp_path, say, score):
  monkeypatch.setattr(generated, "run_batch", Said(say))
  session = asking(session, "passkey_text")
  session = dataclasses.replace(
    session, results=ResultStore(tmp_path, session.results.info)
  )
  (job,) = PASSKEY.jobs(asked_of(session))
  result = PASSKEY.run(session, job)
  assert result["score"] == score and result["metric"] == "first_integer"
  assert PASSKEY.describe(result).startswith("passkey_text 1500: ")


@pytest.mark.slow  # compiles the decode step
def test_passkey_in_prose_is_generated_by_a_model(session):
  session = asking(session, "passkey_text", lengths=(500,))
  (job,) = PASSKEY.jobs(asked_of(session))
  result = PASSKEY.run(session, job)
  line = session.results.finished(job.key)[0]
  assert line["prompt_tokens"] == 490 and 0 <= result["score"] <= 1


def test_without_tasks_hsa_ruler_is_what_it_was(session):
  session = asking(session, haystacks=(Haystack.TEXT, Haystack.NOISE))
  jobs = HSA_RULER.jobs(asked_of(session))
  assert [(j.task, j.protocol, j.haystack, j.needle) for j in jobs] == [
    ("s_niah", "teacher_forced_exact_match", "text", "digits"),
    ("s_niah", "teacher_forced_exact_match", "noise", "digits"),
  ]


def test_protocols_carry_a_version(session):
  names = {
    (job.task, job.protocol)
    for suite, task in FORCED
    for job in suite.jobs(asked_of(asking(session, task)))
  }
  assert ("vt", "hsa-ruler-v1") in names and ("fwe", "hsa-ruler-v1") in names
  assert ("passkey_ids", "passkey-ids-v1") in names
  assert ("mqar", "mqar-v1") in names


@pytest.mark.parametrize(
  ("suite", "task"), [*FORCED, (PASSKEY, "passkey_text")]
)
def test_lengths_too_short_are_refused(session, suite, task):
  def check(*lengths):
    suite.check(asked_of(asking(session, task, lengths=lengths)))

  with pytest.raises(FlagError, match=f"1 too short; .*{task} take") as error:
    check(1, 2_000)
  need = int(re.search(r"take (\d+) tokens", str(error.value)).group(1))
  with pytest.raises(FlagError, match=f"{need - 1} too short"):
    check(need - 1)
  check(need)


def test_random_is_no_haystack_to_ask_for(session):
  for suite in (HSA_RULER, PASSKEY):
    session = asking(session, haystacks=(Haystack.RANDOM,))
    with pytest.raises(FlagError, match="--haystack=random: only training"):
      suite.check(asked_of(session))


def test_a_vocabulary_too_small_is_told(session):
  tokenizer = type(session.tokenizer)()
  tokenizer.vocab_size = 20
  asked = asked_of(asking(session, "mqar"))._replace(tokenizer=tokenizer)
  with pytest.raises(FlagError, match="--tasks=mqar: .*tokenizer with more"):
    MQAR.check(asked)
  ids = asking(session, "s_niah", needle=Needle.IDS)
  asked = asked_of(ids)._replace(tokenizer=tokenizer)
  with pytest.raises(FlagError, match="needs ids above 100"):
    HSA_RULER.check(asked)


@pytest.mark.parametrize("length", [1_500, 1_503, 1_505])
@pytest.mark.parametrize(
  ("task", "scored"), [("gca_passkey", 1), ("gca_keys", 1), ("gca_hops", 2)]
)
def test_gca_answers_begin_with_the_second_token_of_a_chunk(
  session, task, scored, length
):
  """Chunks of 4; the same needles as where every id is scored."""
  samples = []
  for name in (task, f"{task}_all"):
    asked = asking(session, name, lengths=(length,))
    (job,) = GCA.jobs(asked_of(asked))
    make = GCA.sample_maker(asked, job)
    samples += [[make(number) for number in range(4)]]
  for one, other in zip(*samples, strict=True):
    tokens, first = render(one), int(one.answer.positions[0])
    assert len(tokens) == one.length == length and first % 4 == 1
    assert one.answer.gold.tolist() == tokens[one.answer.positions].tolist()
    assert tokens[one.answer.sources].tolist() == one.answer.gold.tolist()
    assert len(one.answer.gold) == scored
    whole = other.answer.gold
    step = len(whole) // scored
    assert whole[::step].tolist() == one.answer.gold.tolist()
    assert one.recipe["names"] == other.recipe["names"]
