"""Two runs on the same samples: matched, verified, tested, told."""

import csv
import io

import numpy as np
import pytest

from hsa_jax.evaluation import compare, paired
from hsa_jax.evaluation.results import ResultsError, ResultStore
from hsa_jax.evaluation.runs import Kind, load_run
from tests.evaluation import report_cases as cases


def make(folder, label, jobs, **info):
  """A run with `{(task, length): scores}`."""
  store = ResultStore(folder, cases.INFO._replace(label=label, **info))
  for (task, length), values in jobs.items():
    key = cases.key_fields("hsa_ruler", task, length, len(values))
    cases.add_job(store, key, values)
  return folder


@pytest.fixture
def pair(tmp_path):
  good = [1] * 19 + [0]
  bad = [0] * 10 + [1] * 10
  fractions = [0.5, 0.75, 1.0, 0.25]
  a = {("s_niah", 256): good, ("s_niah", 1024): good, ("vt", 256): fractions}
  b = {
    ("s_niah", 256): bad,
    ("s_niah", 1024): good,
    ("vt", 256): [f / 2 for f in fractions],
  }
  return make(tmp_path / "a", "hsa", a), make(tmp_path / "b", "swa", b)


def test_samples_are_matched_by_number(pair):
  found = compare.compare_runs(*map(load_run, pair))
  first, equal, fractions = found
  assert (first.length, equal.length) == (256, 1024)
  # 10 only A, 1 only B (the last sample), 9 both.
  assert (first.paired.only_a, first.paired.only_b) == (10, 1)
  assert first.paired.p_value == pytest.approx(paired.sign_test(10, 1))
  assert first.paired.difference == pytest.approx(9 / 20)
  assert equal.paired.p_value == 1
  assert fractions.paired.mean_a == pytest.approx(0.625)
  assert fractions.paired.difference == pytest.approx(0.3125)
  adjusted = paired.holm([row.paired.p_value for row in found])
  assert [row.holm for row in found] == adjusted


def test_the_order_of_the_files_does_not_matter(pair):
  before = compare.compare_runs(*map(load_run, pair))
  file = pair[1] / "predictions.jsonl"
  lines = file.read_text().splitlines(keepends=True)
  file.write_text("".join(lines[::-1]))
  assert compare.compare_runs(*map(load_run, pair)) == before


def test_comparison_is_written(pair, tmp_path):
  out = tmp_path / "out"
  text = compare.write_paired(*pair, out)
  assert "# hsa against swa" in text
  assert "19/20" in text and "10/20" in text and "10 / 1" in text
  assert "+0.450" in text and "0.012" in text
  assert (out / "compare.md").read_text() == text
  assert (out / "compare_score.png").stat().st_size > 10_000
  assert "data:image/png" in (out / "compare.html").read_text()
  rows = list(csv.DictReader(io.StringIO((out / "compare.csv").read_text())))
  assert len(rows) == 3 and rows[0]["num_pairs"] == "20"
  assert float(rows[0]["difference"]) == pytest.approx(0.45)
  # Without a folder: the same tables, no picture, no file.
  bare = compare.write_paired(*pair)
  assert "+0.450" in bare and "![" not in bare


def test_text_is_compared_in_nats_and_less_is_better(tmp_path):
  for name, level in (("a", 1.0), ("b", 1.2)):
    store = ResultStore(tmp_path / name, cases.INFO._replace(label=name))
    cases.add_text(store, level=level)
  a, b = load_run(tmp_path / "a"), load_run(tmp_path / "b")
  found = compare.compare_runs(a, b)
  assert {row.kind for row in found} == {Kind.TEXT}
  # The same documents, each worse by the same: no spread is left.
  for row in found:
    assert row.paired.interval == pytest.approx((-0.2, -0.2), abs=1e-9)
  text = compare.write_paired(tmp_path / "a", tmp_path / "b")
  lines = [line for line in text.splitlines() if "last_512" in line]
  assert lines and all(line.endswith("| a      |") for line in lines)


def test_samples_without_a_partner_are_counted(tmp_path):
  a = make(tmp_path / "a", "a", {("s_niah", 256): [1] * 4})
  store = ResultStore(tmp_path / "b", cases.INFO._replace(label="b"))
  key = cases.key_fields("hsa_ruler", "s_niah", 256, 4)
  for i in (0, 2):
    recipe = {"start": i, "length": 256}
    store.add_prediction({**key, "sample": i, "correct": 0, "recipe": recipe})
  text = compare.write_paired(a, tmp_path / "b")
  assert "2 (of 4 and 2)" in text and "2/2" in text and "0/2" in text


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"seed": 1}, "seed: 0 in a, 1 in b: these are not the same samples"),
    ({"tokenizer": "u"}, "tokenizer: t in a, u in b"),
    ({"store": "x"}, "same token store"),
  ],
)
def test_other_questions_are_refused(tmp_path, change, message):
  jobs = {("s_niah", 256): [1, 0]}
  a = make(tmp_path / "a", "a", jobs)
  b = make(tmp_path / "b", "b", jobs, **change)
  with pytest.raises(ResultsError, match=message):
    compare.write_paired(a, b)


def test_nothing_in_common_says_what_there_is(tmp_path):
  a = make(tmp_path / "a", "a", {("s_niah", 256): [1, 0]})
  b = make(tmp_path / "b", "b", {("s_niah", 256): [1, 0, 1]})
  with pytest.raises(ResultsError) as error:
    compare.write_paired(a, b)
  text = str(error.value)
  assert "a has hsa_ruler s_niah 256 (2 samples)" in text
  assert "b has hsa_ruler s_niah 256 (3 samples)" in text


def test_results_alone_cannot_be_paired(tmp_path):
  jobs = {("s_niah", 256): [1, 0]}
  a, b = make(tmp_path / "a", "a", jobs), make(tmp_path / "b", "b", jobs)
  (b / "predictions.jsonl").unlink()
  with pytest.raises(ResultsError, match="b: no samples in predictions.jsonl"):
    compare.write_paired(a, b)


def test_other_recipes_under_one_number_are_refused(tmp_path):
  jobs = {("s_niah", 256): [1, 0]}
  a, b = make(tmp_path / "a", "a", jobs), make(tmp_path / "b", "b", jobs)
  file = b / "predictions.jsonl"
  file.write_text(file.read_text().replace('"start": 1', '"start": 9'))
  with pytest.raises(ResultsError, match="sample 1 of s_niah at 256 differs"):
    compare.write_paired(a, b)


def test_shared_difficulty_is_used():
  """Where samples decide more than models, pairing finds what means hide."""
  rng = np.random.default_rng(0)
  hard = rng.random(60) < 0.5
  a = np.where(hard, 0, 1)
  b = a.copy()
  b[np.flatnonzero(a)[:8]] = 0
  got = paired.compare_scores(a, b)
  assert got.p_value == pytest.approx(2 / 2**8)
