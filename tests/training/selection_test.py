"""What the tokens select, against loops over every token and slot."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from hsa_jax.config import HsaConfig, MeshConfig, ModelConfig
from hsa_jax.models import LanguageModel, language_model
from hsa_jax.models.hsa import SequenceMemory
from hsa_jax.ops.select import empty_selection, select_chunks
from hsa_jax.parallel import make_mesh
from hsa_jax.training.hooks import Moment
from hsa_jax.training.selection import (
  Diagnose,
  Recorder,
  Search,
  can_diagnose,
  look,
  selection_stats,
)
from hsa_jax.training.state import TrainState
from hsa_jax.types import Limits

from .helpers import VOCAB, make_config, make_inputs

SIZE = 4


def make_search(length=22, stride=1, top_k=3, heads=2, dim=5):
  rng = np.random.default_rng(0)
  rows = np.arange(0, length, stride)
  query = jnp.asarray(rng.normal(size=(2, len(rows), heads, dim)), jnp.float32)
  marks = rng.normal(size=(2, length // SIZE, heads, dim))
  landmarks = jnp.asarray(marks, jnp.float32)
  visible = jnp.asarray(rows // SIZE)
  found = select_chunks(query, landmarks, num_visible=visible, top_k=top_k)
  return Search(query, landmarks, visible, found), rows


def by_loops(search, rows):
  """The definitions, one token and slot at a time."""
  index, valid = np.asarray(search.found.index), np.asarray(search.found.valid)

  def at(*place):
    return index[place], valid[place]

  nats, shares, distances, overlaps = [], [], [], []
  for b, r, g in np.ndindex(index.shape[:3]):
    query = np.asarray(search.query[b, r, g], np.float64)
    marks = np.asarray(search.landmarks[b, :, g], np.float64)
    seen = int(search.num_visible[r])
    if seen:
      p = np.exp(marks[:seen] @ query / math.sqrt(len(query)))
      p /= p.sum()
      nats.append(-(p * np.log(p)).sum())
    if seen > 1:
      shares.append(nats[-1] / math.log(seen))
    mine = [i for i, ok in zip(*at(b, r, g), strict=True) if ok]
    distances += [rows[r] // SIZE - i for i in mine]
    if r:
      before = {i for i, ok in zip(*at(b, r - 1, g), strict=True) if ok}
      overlaps += [i in before for i in mine]
  return [np.mean(x) for x in (nats, shares, valid, distances, overlaps)]


@pytest.mark.parametrize("stride", [1, 3])
def test_the_numbers_are_those_of_their_definitions(stride):
  search, rows = make_search(stride=stride)
  stats = jax.jit(selection_stats)(search, jnp.asarray(rows // SIZE))
  np.testing.assert_allclose(list(stats), by_loops(search, rows), rtol=1e-5)


def test_equal_scores_have_the_most_entropy_and_one_chunk_has_none():
  search, rows = make_search()
  flat = search._replace(query=jnp.zeros_like(search.query))
  stats = selection_stats(flat, jnp.asarray(rows // SIZE))
  assert float(stats.score_entropy_share) == pytest.approx(1.0)
  sharp = search._replace(query=1e3 * search.query)
  stats = selection_stats(sharp, jnp.asarray(rows // SIZE))
  assert float(stats.score_entropy_share) < 0.05


def test_a_row_without_chunks_gives_zeros():
  query, landmarks = jnp.ones((1, 3, 2, 5)), jnp.ones((1, 0, 2, 5))
  found = empty_selection((1, 3, 2), 4)
  visible = jnp.zeros(3, jnp.int32)
  stats = selection_stats(Search(query, landmarks, visible, found), visible)
  assert [float(x) for x in stats] == [0.0] * 5


CFG = ModelConfig(
  vocab_size=VOCAB,
  embed_dim=16,
  num_lower_layers=1,
  num_upper_layers=2,
  num_heads=2,
  num_kv_heads=2,
  head_dim=8,
  mlp_dim=16,
  window_size=8,
  hsa=HsaConfig(
    num_groups=2, chunk_size=8, top_k=2, landmark_dim=8, encoder_mlp_dim=16
  ),
)


@pytest.fixture(scope="module")
def model():
  return jax.jit(lambda: LanguageModel(CFG, rngs=nnx.Rngs(0)))()


def test_the_selections_are_those_of_the_training_pass(model, monkeypatch):
  """Recorded there as well, by a memory put in its place."""
  rng = np.random.default_rng(1)
  tokens = jnp.asarray(rng.integers(0, VOCAB, (2, 45)), jnp.int32)
  seen = []

  def recording(*args, **kwargs):
    seen.append(Recorder(SequenceMemory(*args, **kwargs)))
    return seen[-1]

  monkeypatch.setattr(language_model, "SequenceMemory", recording)

  @jax.jit
  def both(model, top_k):
    model(tokens, limits=Limits(top_k=top_k))
    searches = [search for memory in seen for search in memory.searches]
    theirs = [selection_stats(s, jnp.arange(45) // 8) for s in searches]
    return look(model, tokens, top_k), theirs

  slots = []
  for top_k in (1, 2):
    ours, theirs = both(model, jnp.asarray(top_k))
    assert len(ours) == len(theirs) == 2
    for a, b in zip(ours, theirs, strict=True):
      np.testing.assert_allclose(list(a), list(b), rtol=1e-4)
    slots.append(float(ours[0].valid_slots_share))
  assert 0 < slots[0] < slots[1]


def test_the_hook_reports_now_and_then(model, tmp_path):
  cfg = make_config(diagnose_every=3, top_k_schedule=((0, 1), (4, 2)))
  batch = make_inputs(cfg, tmp_path).data.validation_batches(1)[0]
  mesh = make_mesh(MeshConfig())
  reports = []
  hook = Diagnose(
    batch, cfg.train, report=lambda *report: reports.append(report), mesh=mesh
  )
  due = [s for s in range(1, 8) if hook.wants(s, Moment.STEP)]
  assert due == [3, 6]
  with jax.set_mesh(mesh):
    for step in due:
      hook.on_state(step, TrainState(model, (), jnp.asarray(step)))
  assert [step for step, _ in reports] == due
  slots = [v["hsa/group1_valid_slots_share"] for _, v in reports]
  assert 0 < slots[0] < slots[1] <= 1
  assert len(reports[0][1]) == 10


def test_models_that_select_nothing_are_left_alone(model):
  assert can_diagnose(model)
  assert not can_diagnose(object())
  no_memory = dataclasses.replace(CFG, hsa=HsaConfig(num_groups=0))
  plain = jax.eval_shape(lambda: LanguageModel(no_memory, rngs=nnx.Rngs(0)))
  assert not can_diagnose(plain)
