"""The needle suite against whole forward passes, and its resumption."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from hsa_jax.config import Haystack
from hsa_jax.data.sample import render
from hsa_jax.evaluation import FlagError, forced, niah
from hsa_jax.evaluation.results import ResultStore, read_lines
from hsa_jax.evaluation.suite import asked_of
from hsa_jax.memory import Home
from hsa_jax.types import Selection

from .helpers import make_session, model_config


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
  """A session whose only job, of three samples in batches of two, is done."""
  session = make_session(tmp_path_factory.mktemp("niah"), lengths=(250,))
  (job,) = niah.SUITE.jobs(asked_of(session))
  return session, job, niah.SUITE.run(session, job)


def recipe_of(session, job, sample):
  made = niah.sample_maker(session, job)(sample)
  return made, render(made)


def test_predictions_equal_the_full_forward_pass(measured):
  session, job, _ = measured
  forward = jax.jit(lambda model, tokens: model(tokens))
  lines = session.results.finished(job.key)
  assert sorted(lines) == [0, 1, 2]
  for sample, line in lines.items():
    recipe, tokens = recipe_of(session, job, sample)
    assert len(tokens) == 250
    assert tokens[-1] == session.tokenizer.eos_id
    best = np.argmax(forward(session.model, tokens[None])[0], axis=-1)
    where = recipe.answer.positions
    assert line["prediction_ids"] == best[where - 1].tolist()
    assert line["gold_ids"] == tokens[where].tolist()
    assert line["gold"].isdecimal() and len(line["gold"]) == 8
    assert sample / 3 <= line["depth"] <= (sample + 1) / 3 + 0.02


@pytest.mark.parametrize("home", [Home.DEVICE, Home.DISK])
def test_every_home_gives_the_same_predictions(measured, tmp_path, home):
  session, job, _ = measured
  session = dataclasses.replace(
    session,
    settings=dataclasses.replace(session.settings, memory=home),
    results=ResultStore(tmp_path, session.results.info),
  )
  result = niah.SUITE.run(session, job)
  held = {"device": 0, "disk": result["disk_bytes"]}[str(home)]
  assert (held > 0) == (home is Home.DISK) and result["host_bytes"] == 0
  lines = read_lines(tmp_path / "predictions.jsonl")
  expected = measured[0].results.finished(job.key)
  for line in lines:
    for field in ("prediction_ids", "recall_at_k", "depth"):
      assert line[field] == expected[line["sample"]][field]
  assert len(lines) == job.num_samples
  assert not (tmp_path / "memory").exists()


def test_sources_are_the_tokens_that_answers_repeat(measured):
  session, job, _ = measured
  recipe, tokens = recipe_of(session, job, 1)
  answer = recipe.answer
  np.testing.assert_array_equal(tokens[answer.positions], answer.gold)
  np.testing.assert_array_equal(tokens[answer.sources], answer.gold)
  assert answer.sources.max() < answer.positions.min()


def test_result_line_is_complete(measured):
  session, _, result = measured
  wanted = {
    "suite", "protocol", "task", "length", "num_samples", "score", "ci_low",
    "ci_high", "metric", "tokens_per_s", "peak_rss_bytes", "device_bytes",
    "host_bytes", "checkpoint", "config_hash", "seed", "haystack", "needle",
    "recall_at_k", "p_correct_given_recalled", "unique_fraction",
  }  # fmt: skip
  (line,) = read_lines(session.results.path / "results.jsonl")
  assert wanted <= line.keys()
  assert 0 <= result["recall_at_k"] <= 1
  assert result["host_bytes"] > 0 and result["tokens_per_s"] > 0
  assert result["ci_low"] <= result["score"] <= result["ci_high"]


def test_finished_samples_are_not_computed_again(measured):
  session, job, result = measured
  again = make_session(session.results.path.parent, lengths=(250,))
  assert niah.SUITE.run(again, job) == result
  assert again.prefill.num_compilations == 0
  assert len(read_lines(session.results.path / "results.jsonl")) == 1
  # With one line lost, that sample alone is computed, to the same answer.
  file = session.results.path / "predictions.jsonl"
  lines = file.read_text().splitlines(keepends=True)
  file.write_text("".join(lines[:2]))
  third = make_session(session.results.path.parent, lengths=(250,))
  assert third.pending(job) == [2]
  assert niah.SUITE.run(third, job)["num_correct"] == result["num_correct"]
  got = read_lines(file)[2]
  assert got["prediction_ids"] == json.loads(lines[2])["prediction_ids"]


def test_a_model_without_memory_has_no_recall(tmp_path):
  session = make_session(
    tmp_path,
    cfg=model_config(num_groups=0),
    lengths=(1000,),
    samples=2,
    haystacks=(Haystack.NOISE,),
  )
  (job,) = niah.SUITE.jobs(asked_of(session))
  result = niah.SUITE.run(session, job)
  assert result["recall_at_k"] is None
  assert result["p_correct_given_recalled"] is None
  assert result["unique_fraction"] < 0.2  # one period of the noise
  line = session.results.finished(job.key)[0]
  assert line["tokens_read"] < 60  # receptive field and answer
  assert niah.SUITE.describe(result).startswith("s_niah noise 1000: ")


def test_recall_looks_at_every_group_head_and_slot():
  index = np.zeros((2, 3, 2, 2), np.int32)
  index[1, 0] = [[5, 4], [7, 0]]
  index[1, 2] = [[9, 0], [0, 0]]
  valid = np.ones(index.shape, bool)
  valid[1, 2] = [[True, False], [False, False]]
  first = Selection(index, np.zeros(index.shape), valid)
  ask = np.array([0, 0, 0, 2, 2])
  gold = np.array([7, 4, 6, 9, 0])
  got = forced.recalled_chunks([first], row=1, queries=ask, chunks=gold)
  # Chunk 0 stands in the invalid slots of the last query only: not recalled.
  np.testing.assert_array_equal(got, [True, True, False, True, False])
  sixes, all_valid = np.full_like(index, 6), np.ones_like(valid)
  other = first._replace(index=sixes, valid=all_valid)
  got = forced.recalled_chunks([first, other], row=1, queries=ask, chunks=gold)
  np.testing.assert_array_equal(got, [True, True, True, True, False])
  assert forced.recalled_chunks([], row=0, queries=ask, chunks=gold) is None


def test_too_short_lengths_are_one_message(measured):
  session, _, _ = measured
  message = "100, 128 too short.* take [0-9]+ tokens"
  settings = dataclasses.replace(session.settings, lengths=(100, 128, 4096))
  with pytest.raises(FlagError, match=message):
    niah.SUITE.check(asked_of(session)._replace(settings=settings))
