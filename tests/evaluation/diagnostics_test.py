"""Ranks, distances and reads of both engines against dense computations."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hsa_jax.data.sample import NOWHERE
from hsa_jax.evaluation import diagnostics, forced, generated
from hsa_jax.evaluation.results import ResultStore
from hsa_jax.evaluation.retrieval import Trace
from hsa_jax.evaluation.session import Diagnostics
from hsa_jax.memory import Home
from hsa_jax.ops.select import retrieval_scores
from hsa_jax.types import Selection

from .helpers import HSA, build_model, make_session, model_config
from .samples import make_job, random_forced, random_prompt

LENGTH = 150
FULL = {"diagnostics": Diagnostics.FULL}
CFG = model_config(num_groups=2)
SHARED = model_config(num_groups=2, tokens_per_retrieval=3)


class Dense:
  """A memory of one sequence that keeps the scores of every chunk."""

  def __init__(self, block):
    self.block, self.scores, self.weights, self.found = block, [], [], []

  def search(self, query, *, num_visible, top_k):
    scores = np.asarray(retrieval_scores(query, self.block.landmarks))[0]
    seen = np.arange(scores.shape[-1]) < np.asarray(num_visible)[:, None]
    self.scores.append(np.where(seen[:, None], scores, -np.inf))
    order = np.argsort(-self.scores[-1][..., ::-1], axis=-1, kind="stable")
    best = (scores.shape[-1] - 1 - order)[..., :top_k]
    valid = np.take_along_axis(self.scores[-1], best, -1) > -np.inf
    index = -np.sort(-np.where(valid, best, -1), axis=-1)
    score = np.take_along_axis(scores, np.maximum(index, 0), -1)
    found = Selection(
      jnp.asarray(np.maximum(index, 0)[None], jnp.int32),
      jnp.asarray(np.where(index >= 0, score, -np.inf)[None]),
      jnp.asarray((index >= 0)[None]),
    )
    self.found.append(found)
    return found

  def read(self, query, selection, weights, *, sink):
    from hsa_jax.ops.read import read_chunks

    self.weights.append(np.asarray(weights)[0])
    _, keys, values = self.block
    return read_chunks(query, keys, values, selection, weights, sink=sink)


def dense(cfg, tokens):
  """The record of a whole pass over a sequence, all scores kept."""
  model = build_model(cfg)
  hidden, _ = jax.jit(lambda m, x: m.lower(x, m.init_carry(1)))(
    model, jnp.asarray(tokens[None])
  )
  memory = Dense(jax.jit(lambda m, x: m.encode(x))(model, hidden))
  model.upper(hidden, memory, model.init_upper_carry(1), position=0)
  return memory


def want(memory, cfg, asking, golds):
  """Ranks, recalled and distances by sorting, per group."""
  stride = cfg.hsa.tokens_per_retrieval
  place, found, away = [], [], []
  for scores, chosen in zip(memory.scores, memory.found, strict=True):
    best, hit, count = [], 0, {}
    for token, gold in zip(asking, golds, strict=True):
      line = scores[token // stride][0]
      order = sorted(range(len(line)), key=lambda c: (-line[c], -c))
      seen = [g for g in gold if g >= 0 and line[g] > -np.inf]
      best.append(min((order.index(g) + 1 for g in seen), default=None))
      row = token // stride
      index = np.asarray(chosen.index)[0, row, 0]
      index = index[np.asarray(chosen.valid)[0, row, 0]]
      hit += bool(set(index.tolist()) & set(gold))
      for chunk in index:
        bucket = int(token // HSA.chunk_size - chunk).bit_length() - 1
        count[bucket] = count.get(bucket, 0) + 1
    place.append(best)
    found.append(hit)
    away.append([count.get(k, 0) for k in range(max(count) + 1)])
  return place, found, away


def full_session(folder, **more):
  return make_session(folder, **FULL, **more)


@pytest.mark.parametrize(
  "cfg, most",
  [
    pytest.param(CFG, 4096, id="suffix-all"),
    pytest.param(SHARED, 4096, id="suffix-shared", marks=pytest.mark.slow),
    pytest.param(CFG, 0, id="whole-all", marks=pytest.mark.slow),
    pytest.param(SHARED, 0, id="whole-shared"),
  ],
)
def test_forced_diagnostics_equal_dense_ones(tmp_path, monkeypatch, cfg, most):
  monkeypatch.setattr(forced, "MAX_SUFFIX", most)
  session = full_session(tmp_path, cfg=cfg, segment=20)
  make = functools.partial(random_forced, length=LENGTH)
  job = make_job(LENGTH)
  result = forced.run_forced_job(session, job, make)
  recalled = np.zeros(2)
  for number, row in session.results.finished(job.key).items():
    sample = make(number)
    asking = np.array(sample.positions) - 1
    golds = [[s // 4] if s != NOWHERE else [NOWHERE] for s in sample.sources]
    memory = dense(cfg, sample.tokens)
    place, found, away = want(memory, cfg, asking, golds)
    got = row["diagnostics"]
    assert got["gold_tokens"] == 3
    assert got["ranks_by_group"] == place
    assert got["recalled_by_group"] == found
    assert got["distances_by_group"] == away
    check_reads(row["reads"], memory, cfg, asking, golds)
    recalled += found
  share = result["diagnostics"]["recall_at_k_by_group"]
  np.testing.assert_allclose(share, recalled / 9)


def check_reads(reads, memory, cfg, asking, golds):
  assert reads["num_chunks"] == LENGTH // 4
  assert reads["gold_chunks"] == [gold[0] for gold in golds]
  assert len(reads["answer_tokens"]) == len(asking)
  for group, entry in enumerate(reads["groups"]):
    assert (entry["group"], entry["head"]) == (group, 0)
    for i, token in enumerate(asking):
      row = token // cfg.hsa.tokens_per_retrieval
      index = np.asarray(memory.found[group].index)[0, row, 0]
      valid = np.asarray(memory.found[group].valid)[0, row, 0]
      assert entry["chunks"][i] == index[valid].tolist()
      weights = memory.weights[group][token, 0][valid]
      np.testing.assert_allclose(entry["weights"][i], weights, atol=1e-3)


@pytest.mark.parametrize(
  "cfg",
  [
    pytest.param(CFG, id="all", marks=pytest.mark.slow),
    pytest.param(SHARED, id="shared"),
  ],
)
def test_generated_diagnostics_equal_dense_ones(tmp_path, cfg):
  session = full_session(tmp_path, cfg=cfg, segment=20)
  job = make_job(LENGTH, 2)
  prompts = [random_prompt(n, 131, max_new_tokens=19) for n in range(2)]
  generated.run_generated_job(
    session,
    job,
    prompts.__getitem__,
    score=lambda prompt, text: {"score": 0.0},
    summarise=lambda rows: {"score": 0.0, "ci_low": 0.0, "ci_high": 1.0},
  )
  for number, row in session.results.finished(job.key).items():
    written, prompt = row["prediction_ids"], prompts[number]
    tokens = np.concatenate([prompt.tokens, written]).astype(np.int32)
    tokens = np.pad(tokens, (0, LENGTH - len(tokens)))
    gold = sorted({t // 4 for t in prompt.evidence if t // 4 < 131 // 4})
    asking = np.arange(130, 130 + row["new_tokens"])
    memory = dense(cfg, tokens)
    place, found, away = want(memory, cfg, asking, [gold] * len(asking))
    got = row["diagnostics"]
    assert got["ranks_by_group"] == place
    assert got["recalled_by_group"] == found
    assert got["distances_by_group"] == away
    seen = set()
    for group in row["reads"]["groups"]:
      seen |= {chunk for chunks in group["chunks"] for chunk in chunks}
    assert row["recalled_evidence"] == len(seen & set(gold))
    assert len(row["reads"]["answer_tokens"]) == row["new_tokens"]


def test_every_home_tells_the_same(tmp_path):
  make = functools.partial(random_forced, length=LENGTH)
  lines = []
  for home in (Home.HOST, Home.DEVICE, Home.DISK):
    session = full_session(tmp_path, memory=home)
    session = dataclasses.replace(
      session, results=ResultStore(tmp_path / home, session.results.info)
    )
    job = make_job(LENGTH)
    forced.run_forced_job(session, job, make)
    rows = session.results.finished(job.key)
    lines.append([(r["diagnostics"], r["reads"]) for r in rows.values()])
  assert lines[0] == lines[1] == lines[2]


def test_only_the_first_samples_keep_their_reads(tmp_path):
  session = full_session(tmp_path)
  job = make_job(LENGTH, 5)
  make = functools.partial(random_forced, length=LENGTH)
  forced.run_forced_job(session, job, make)
  rows = session.results.finished(job.key)
  assert [n for n, row in rows.items() if "reads" in row] == [0, 1, 2]
  assert all("diagnostics" in row for row in rows.values())


def make_trace(index, **fields):
  """One token per line of `index`, one head; -1 is an empty slot."""
  index = np.array(index)[:, None]
  base = Trace(np.full(len(index), 40), index, index >= 0, None, None, None)
  return base._replace(**fields)


def test_any_head_and_slot_is_a_hit_and_an_empty_one_is_not():
  trace = Trace(
    np.array([40, 41]),
    np.array([[[5, 4], [7, 0]], [[9, 0], [0, 0]]]),
    np.array([[[1, 1], [1, 1]], [[1, 0], [0, 0]]], bool),
    np.array([10, 10]),
    None,
    None,
  )
  gold = np.array([[7, 6], [0, 9]])
  got = diagnostics.hits(trace, gold)
  # Chunk 0 stands in empty slots of the second token only.
  np.testing.assert_array_equal(got, [[True, False], [False, True]])


def test_distances_fall_into_powers_of_two():
  trace = make_trace([[9, 8, 7, 6], [2, -1, -1, -1]])  # own chunk: 10
  assert diagnostics.distance_counts(trace, 4) == [1, 2, 1, 1]
  assert diagnostics.distance_counts(make_trace([[-1]]), 4) == []


def test_summary_joins_samples_and_leaves_out_lines_without():
  def line(found, places, away):
    return {
      "diagnostics": {
        "gold_tokens": 2,
        "recalled_by_group": [found],
        "ranks_by_group": [places],
        "distances_by_group": [away],
      }
    }

  rows = [line(2, [1, 3], [1]), {}, line(0, [9, None], [0, 4])]
  got = diagnostics.summarise_diagnostics(rows)["diagnostics"]
  assert got["num_samples"] == 2
  assert got["recall_at_k_by_group"] == [0.5]
  assert got["rank_median_by_group"] == [3.0]
  assert got["distance_histogram"] == [[1, 1, 1], [2, 3, 4]]
  assert diagnostics.summarise_diagnostics([{}]) == {}
