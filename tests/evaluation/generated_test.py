"""The generating engine against full forward passes, one token at a time."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from hsa_jax.evaluation import generated
from hsa_jax.evaluation.results import ResultStore, read_lines
from hsa_jax.memory import Home
from hsa_jax.types import Selection

from .helpers import build_model, make_session, model_config
from .samples import make_job, random_prompt

LENGTH, NEW = 130, 7
EOS = 256


@jax.jit
def _forward(model, tokens):
  return model(tokens)


def greedy(model, tokens: np.ndarray, count: int) -> list[int]:
  """Full forward passes over one padded shape; ends before eos."""
  row = np.zeros((1, LENGTH + 8), np.int32)
  row[0, : len(tokens)] = tokens
  out = []
  for at in range(len(tokens), len(tokens) + count):
    logits = np.asarray(_forward(model, row))[0, at - 1, :258]
    token = int(np.argmax(logits))
    if token == EOS:
      break
    out.append(token)
    row[0, at] = token
  return out


def score(prompt, text):
  return {"score": float(text in prompt.references)}


def summarise(rows):
  mean = float(np.mean([row["score"] for row in rows]))
  return {"score": mean, "ci_low": 0.0, "ci_high": 1.0, "metric": "found"}


run_job = functools.partial(
  generated.run_generated_job, score=score, summarise=summarise
)


def prompt_of(number: int):
  """Three lengths, of which neighbours are equal; unequal room for answers."""
  length = (LENGTH - NEW, LENGTH - NEW, 61, 40, 40)[number]
  return random_prompt(number, length, max_new_tokens=NEW - number % 2)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
  session = make_session(tmp_path_factory.mktemp("generated"))
  job = make_job(LENGTH, 5)
  return session, job, run_job(session, job, prompt_of)


def test_text_is_that_of_full_forward_passes(measured):
  session, job, _ = measured
  rows = session.results.finished(job.key)
  assert list(rows) == [0, 1, 2, 3, 4]
  for number, row in rows.items():
    prompt = prompt_of(number)
    want = greedy(build_model(), prompt.tokens, prompt.max_new_tokens)
    assert row["prediction_ids"] == want
    assert row["prediction"] == session.tokenizer.decode(want)
    assert row["ended"] == (len(want) < prompt.max_new_tokens)
    assert row["prompt_tokens"] == prompt.length
    assert row["references"] == ["yes"] and row["score"] == 0.0


@pytest.mark.parametrize("home", [Home.DEVICE, Home.DISK])
def test_every_home_writes_the_same(measured, tmp_path, home):
  session, job, _ = measured
  session = dataclasses.replace(
    session,
    settings=dataclasses.replace(session.settings, memory=home),
    results=ResultStore(tmp_path, session.results.info),
  )
  run_job(session, job, prompt_of)
  want = measured[0].results.finished(job.key)
  for line in read_lines(tmp_path / "predictions.jsonl"):
    for field in ("prediction_ids", "recalled_evidence", "evidence_chunks"):
      assert line[field] == want[line["sample"]][field]
  assert not (tmp_path / "memory").exists()


@pytest.mark.parametrize(
  "cfg",
  [model_config(num_groups=0), model_config(tokens_per_retrieval=3)],
  ids=["without_memory", "shared_retrievals"],
)
def test_other_models_write_what_they_would_alone(tmp_path, cfg):
  session = make_session(tmp_path, cfg=cfg)
  job = make_job(LENGTH, 2)
  result = run_job(session, job, prompt_of)
  for number, row in session.results.finished(job.key).items():
    prompt = prompt_of(number)
    want = greedy(build_model(cfg), prompt.tokens, prompt.max_new_tokens)
    assert row["prediction_ids"] == want
  assert (result["recall_at_k"] is None) == (cfg.hsa.num_groups == 0)


def test_an_eos_ends_a_row_and_not_its_neighbour(tmp_path, monkeypatch):
  """Eos is the token that row 0 writes third, and row 1 never."""
  session = make_session(tmp_path)
  prompts = [random_prompt(n, 60) for n in range(2)]
  free = [greedy(build_model(), p.tokens, NEW) for p in prompts]
  eos = next(t for t in free[0][1:] if t not in (*free[0][:1], *free[1]))
  place = free[0].index(eos)
  tokenizer = type("Other", (), {"eos_id": eos, "vocab_size": 258})()
  tokenizer.decode = session.tokenizer.decode
  monkeypatch.setattr(session, "tokenizer", tokenizer)
  job = make_job(LENGTH, 2)
  run_job(session, job, prompts.__getitem__)
  first, second = session.results.finished(job.key).values()
  assert (first["prediction_ids"], first["ended"]) == (free[0][:place], True)
  assert (second["prediction_ids"], second["ended"]) == (free[1], False)
  assert first["new_tokens"] == place + 1


def test_only_missing_samples_are_computed(measured):
  session, job, result = measured
  asked = []

  def make(number):
    asked.append(number)
    return prompt_of(number)

  again = make_session(session.results.path.parent)
  assert run_job(again, job, make) == result
  assert asked == [] and again.prefill.num_compilations == 0


def test_a_prompt_without_room_for_its_answer_is_refused(measured, tmp_path):
  session = dataclasses.replace(
    measured[0], results=ResultStore(tmp_path, measured[0].results.info)
  )
  with pytest.raises(ValueError, match="124 tokens leaves no room for 7 more"):
    run_job(session, make_job(LENGTH), lambda i: random_prompt(i, 124))


def test_evidence_is_recalled_by_any_group_or_step():
  def found(index, valid):
    index = np.array(index).reshape(1, 1, 1, -1)
    valid = np.array(valid).reshape(1, 1, 1, -1)
    return Selection(index, np.zeros(index.shape), valid)

  seen = [found([3, 0], [True, False]), found([5, 2], [True, True])]
  assert generated.recalled_evidence(seen, 0, [0, 3, 2, 9]) == 2
  assert generated.recalled_evidence([], 0, [0]) is None


def test_retrieval_of_the_prompt_is_that_of_its_last_token(measured):
  """Of the suffix, only the row that the first new token comes from counts."""
  session, job, _ = measured
  for number, row in session.results.finished(job.key).items():
    chunks = {t // 4 for t in prompt_of(number).evidence}
    complete = prompt_of(number).length // 4
    assert row["evidence_chunks"] == len({c for c in chunks if c < complete})
    assert 0 <= row["recalled_evidence"] <= row["evidence_chunks"]
