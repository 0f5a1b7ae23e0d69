"""Where full layers look: by hand, by brute force, and in a report."""

import csv
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hsa_jax.config import LayerConfig, Mixer, Position
from hsa_jax.evaluation import FlagError, attention, write_report
from hsa_jax.evaluation.room import Room
from hsa_jax.evaluation.suite import asked_of
from hsa_jax.types import Limits
from tests.evaluation.helpers import make_session, model_config

LOCAL = LayerConfig()
NOPE = LayerConfig(mixer=Mixer.FULL, position=Position.NONE)
ROPE = LayerConfig(mixer=Mixer.FULL, position=Position.ABSOLUTE_ROPE)
HYBRID = model_config({"layers": (LOCAL, NOPE, ROPE)}, num_groups=0)


def first_sample(session):
  (job,) = attention.SUITE.jobs(asked_of(session))
  return job, attention.SUITE.sample_maker(session, job)(0)


def test_regions_of_a_sample(tmp_path):
  session = make_session(tmp_path, cfg=HYBRID, lengths=(500,), samples=1)
  _, sample = first_sample(session)
  region = attention.regions_of(sample, 512)
  text = session.tokenizer.decode(sample.segment(0, 500))
  spans = {
    name: "".join(
      c
      for c, r in zip(text, region, strict=False)
      if attention.REGIONS[r] == name
    )
    for name in attention.REGIONS
  }
  assert spans["begin"] == text[:10]
  value = session.tokenizer.decode(sample.answer.gold)
  assert spans["needle"].startswith(" |One of the special magic numbers for")
  assert spans["needle"].endswith(value)
  assert spans["question"].startswith(" What is the special magic number")
  # All but the eos, which is no text.
  assert len(spans["context"]) == 499 - sum(
    len(spans[name]) for name in ("begin", "needle", "question")
  )
  assert (region[500:] == attention.REGIONS.index("question")).all()


def uniform(model):
  """Queries of zero: every key has the same share."""
  copy = jax.tree.map(lambda x: x, model)
  for place in copy.lower_blocks.places:
    place.attention.query.kernel[...] = 0 * place.attention.query.kernel[...]
  return copy


def test_a_layer_that_looks_everywhere(tmp_path):
  cfg = model_config({"layers": (LOCAL, NOPE)}, num_groups=0)
  session = make_session(tmp_path, cfg=cfg, lengths=(500,), samples=1)
  session.model = uniform(session.model)
  job, sample = first_sample(session)
  with Room(session, job.length) as room:
    found = attention.measure(session, room, sample)["attention"]
  region = attention.regions_of(sample, 500)
  seen = sample.answer.positions  # keys of the token before each of them
  assert [line["layer"] for line in found] == [1, 3]
  for line in found:
    for i, name in enumerate(attention.REGIONS):
      want = np.mean([(region[:n] == i).sum() / n for n in seen])
      assert line[name] == pytest.approx(want, abs=1e-6)
    want = np.mean([math.log(n) for n in seen])
    assert line["entropy_nats"] == pytest.approx(want, abs=1e-5)


def test_streamed_masses_equal_those_of_one_pass(tmp_path):
  session = make_session(tmp_path, cfg=HYBRID, lengths=(300,), samples=1)
  job, sample = first_sample(session)
  with Room(session, job.length) as room:
    found = attention.measure(session, room, sample)["attention"]
  model, tokens = session.model, sample.segment(0, 300)[None]
  region = attention.regions_of(sample, 300)
  x, want = model.embedding(jnp.asarray(tokens)), []
  places = list(model.lower_blocks.places)
  for i in range(4):
    block = jax.tree.map(lambda a, i=i: a[i // 3], places[i % 3])
    if i % 3:
      mixer, normed = block.attention, block.attention_norm(x)
      query, key, _ = mixer.project(normed)
      query, key = mixer.rotate(query, key, 0)
      key = jnp.repeat(key, 2, axis=2)
      logits = jnp.einsum("tnh,unh->ntu", query[0], key[0]) / 4.0
      seen = np.tril(np.ones((300, 300), bool))[None]
      share = jax.nn.softmax(jnp.where(seen, logits, -jnp.inf), axis=-1)
      share = np.asarray(share)[:, sample.answer.positions - 1]
      mass = [share[..., region == r].sum(-1).mean() for r in range(4)]
      log = np.log(np.where(share > 0, share, 1))
      want.append([*mass, -(share * log).sum(-1).mean()])
    x, _ = block(x, None, 0, Limits())
  got = [[line[k] for k in attention._columns()] for line in found]
  assert [line["layer"] for line in found] == [1, 2]
  np.testing.assert_allclose(got, want, rtol=0, atol=2e-5)


def test_results_and_report(tmp_path):
  session = make_session(tmp_path, cfg=HYBRID, lengths=(300, 600), samples=2)
  for job in attention.SUITE.jobs(asked_of(session)):
    result = attention.SUITE.run(session, job)
    for line in result["attention"]:
      total = sum(line[name] for name in attention.REGIONS)
      assert total == pytest.approx(1, abs=1e-5)
    assert "most on the needle is" in attention.SUITE.describe(result)
  report = write_report(session.results.path)
  text = report.read_text()
  assert "## Effective attention" in text
  assert "entropy (nats)" in text
  with (report.parent / "attention.csv").open() as file:
    rows = list(csv.DictReader(file))
  assert [(r["length"], r["layer"]) for r in rows] == [
    ("300", "1"), ("300", "2"), ("600", "1"), ("600", "2")
  ]  # fmt: skip
  assert len(list(report.parent.glob("attention*.png"))) == 1


@pytest.mark.parametrize(
  "cfg", [model_config(num_groups=0), model_config({"layers": (NOPE,)})]
)
def test_models_without_full_layers_are_refused(tmp_path, cfg):
  session = make_session(tmp_path, cfg=cfg, lengths=(300,))
  with pytest.raises(FlagError, match="leave the suite out"):
    attention.SUITE.check(asked_of(session))
