"""The files survive a crash and are never mixed."""

import json

import pytest

from hsa_jax.evaluation import results
from hsa_jax.evaluation.results import ResultsError, ResultStore, RunInfo

INFO = RunInfo(
  label="a",
  checkpoint="runs/a",
  step=10,
  config_hash="c0ffee",
  tokenizer="t",
  store="s",
  seed=0,
  train_length=256,
  num_parameters=1000,
  receptive_field=None,
)


def key(length: int = 256, num_samples: int = 4) -> dict:
  return {
    "suite": "hsa_ruler",
    "protocol": "p",
    "task": "s_niah",
    "haystack": "text",
    "needle": "digits",
    "length": length,
    "num_samples": num_samples,
  }


def test_finished_samples_are_found_again(tmp_path):
  store = ResultStore(tmp_path, INFO)
  store.add_prediction({**key(), "sample": 2, "correct": True})
  store.add_prediction({**key(512), "sample": 0, "correct": False})
  again = ResultStore(tmp_path, INFO)
  assert list(again.finished(key())) == [2]
  assert list(again.finished(key(512))) == [0]
  assert again.finished(key(num_samples=5)) == {}


def test_a_torn_line_is_cut_off(tmp_path):
  store = ResultStore(tmp_path, INFO)
  store.add_prediction({**key(), "sample": 0})
  file = tmp_path / "predictions.jsonl"
  with file.open("a") as f:
    f.write('{"suite": "hsa_ru')
  assert len(results.read_lines(file)) == 1
  again = ResultStore(tmp_path, INFO)
  again.add_prediction({**key(), "sample": 1})
  assert [row["sample"] for row in results.read_lines(file)] == [0, 1]


def test_another_run_is_refused_and_nothing_changes(tmp_path):
  ResultStore(tmp_path, INFO).add_prediction({**key(), "sample": 0})
  before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
  with pytest.raises(ResultsError, match="step: 10 there, 20 now"):
    ResultStore(tmp_path, INFO._replace(step=20))
  with pytest.raises(ResultsError, match="kv_dtype: computed there, int8 now"):
    ResultStore(tmp_path, INFO._replace(kv_dtype="int8"))
  with pytest.raises(ResultsError, match="seed: 0 there, 1 now"):
    ResultStore(tmp_path, INFO._replace(seed=1))
  assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
  # The same checkpoint under another path is the same run.
  ResultStore(tmp_path, INFO._replace(checkpoint="elsewhere"))


def test_unwritable_folder_is_one_message(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(ResultsError, match="cannot be written"):
    ResultStore(tmp_path / "file" / "eval", INFO)


def test_result_lines_carry_their_origin_and_do_not_repeat(tmp_path):
  store = ResultStore(tmp_path, INFO)
  store.add_result({**key(), "score": 0.5})
  store.add_result({**key(), "score": 0.5})
  store.add_result({**key(), "score": 0.75})
  rows = results.read_lines(tmp_path / "results.jsonl")
  assert [row["score"] for row in rows] == [0.5, 0.75]
  assert rows[0]["config_hash"] == "c0ffee"
  assert rows[0]["checkpoint"] == "runs/a"


def test_latest_line_of_each_point_counts():
  rows = [
    {**key(), "score": 0.1},
    {**key(512), "score": 0.2},
    {**key(num_samples=9), "score": 0.3},
  ]
  got = [(row["length"], row["score"]) for row in results.latest_results(rows)]
  assert got == [(512, 0.2), (256, 0.3)]


def test_damaged_files_are_named(tmp_path):
  ResultStore(tmp_path, INFO)
  (tmp_path / "results.jsonl").write_text("{}\nnot json\n{}\n")
  with pytest.raises(ResultsError, match="not a file of JSON lines"):
    results.read_lines(tmp_path / "results.jsonl")
  (tmp_path / "run.json").write_text(json.dumps({"label": "a"}))
  with pytest.raises(ResultsError, match="unreadable"):
    results.read_info(tmp_path)
  with pytest.raises(ResultsError, match="no evaluation results here"):
    results.read_info(tmp_path / "nowhere")
