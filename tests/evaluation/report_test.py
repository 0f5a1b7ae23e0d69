"""Reports are made of the files alone, and pictures show what was counted."""

import matplotlib.image
import pytest

from hsa_jax.evaluation import plots, report
from hsa_jax.evaluation.pages.blocks import format_bytes
from hsa_jax.evaluation.results import ResultsError, ResultStore, RunInfo

LENGTHS = (256, 1048576)


def write_run(folder, label, found, *, field=None):
  """A run that found `found[i]` of four needles at each length."""
  info = RunInfo(label, "c", 5, "h", "t", "s", 0, 256, 1_000_000, field)
  store = ResultStore(folder, info)
  for length, correct in zip(LENGTHS, found, strict=True):
    key = {
      "suite": "hsa_ruler",
      "protocol": "p",
      "task": "s_niah",
      "haystack": "text",
      "needle": "digits",
      "length": length,
      "num_samples": 4,
    }
    for i in range(4):
      row = {"sample": i, "depth": i / 4 + 0.1, "correct": i < correct}
      store.add_prediction({**key, **row})
    score = {"score": correct / 4, "num_correct": correct}
    interval = {"ci_low": 0.1, "ci_high": 0.9, "metric": "exact_match"}
    memory = None if field else 0.875
    more = {
      "token_accuracy": 0.5,
      "recall_at_k": memory,
      "p_correct_given_recalled": memory,
      "unique_fraction": 1.0,
      "tokens_per_s": 81234.5,
      "peak_rss_bytes": 1536 * 1024**2,
    }
    store.add_result({**key, **score, **interval, **more})
  key |= {"suite": "ppl", "task": "last_128", "haystack": "", "needle": ""}
  text = {"bits_per_byte": 2.5, "bits_per_byte_low": 2.4}
  text |= {"bits_per_byte_high": 2.6, "perplexity": 5.7, "num_targets": 999}
  text |= {"score": 1.733, "ci_low": 1.7, "ci_high": 1.8, "buckets": []}
  store.add_result({**key, **text})
  return folder


def test_report_of_one_run(tmp_path):
  path = report.write_report(write_run(tmp_path, "hsa", (4, 3)))
  text = path.read_text()
  assert "| 256    | 4/4 1.00 [0.10, 0.90]" in text
  assert "| 1M     | 3/4 0.75 [0.10, 0.90]" in text
  assert "0.875" in text and "1.5 GiB" in text and "81,234" in text
  assert "2.5000 [2.4000, 2.6000]" in text
  image = "heat_map_hsa_ruler_p_s_niah_text_digits.png"
  assert f"![Score by depth and length]({image})" in text
  picture = matplotlib.image.imread(tmp_path / image)
  assert picture.shape[1] > 500 and picture[..., :3].std() > 0.05


def test_report_is_the_same_when_made_again(tmp_path):
  report.write_report(write_run(tmp_path, "hsa", (4, 3)))
  first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
  report.write_report(tmp_path)
  again = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
  assert again == first
  assert {"report.md", "report.html", "results.csv", "cells.csv"} < {*first}


def test_comparison_puts_runs_side_by_side(tmp_path):
  a = write_run(tmp_path / "a", "hsa", (4, 3))
  b = write_run(tmp_path / "b", "control", (1, 0), field=94)
  path = report.write_comparison([a, b], tmp_path / "out")
  text = path.read_text()
  assert "| length | hsa                   | control               |" in text
  assert "| 1M     | 3/4 0.75 [0.10, 0.90] | 0/4 0.00 [0.10, 0.90] |" in text
  assert "94 tokens" in text and "whole context" in text
  assert "last_128" in text
  image = tmp_path / "out" / "accuracy_hsa_ruler.png"
  assert image.stat().st_size > 10_000


def test_a_folder_without_results_is_named(tmp_path):
  with pytest.raises(ResultsError, match="no evaluation results here"):
    report.write_comparison([tmp_path], tmp_path / "out")


def test_cells_count_by_depth_and_length():
  samples = [
    plots.Sample(256, 0.0, True),
    plots.Sample(256, 0.19, False),
    plots.Sample(256, 1.0, True),
    plots.Sample(1024, 0.5, True),
  ]
  grid = plots.count_cells(samples)
  assert grid.lengths == [256, 1024]
  assert grid.total.tolist() == [[2, 0], [0, 0], [0, 1], [0, 0], [1, 0]]
  assert grid.correct.tolist() == [[1, 0], [0, 0], [0, 1], [0, 0], [1, 0]]


def test_many_samples_get_ten_bins():
  samples = [plots.Sample(256, i / 50, True) for i in range(50)]
  assert plots.count_cells(samples).total.tolist() == [[5]] * 10


@pytest.mark.parametrize(
  ("count", "text"),
  [(0, "0 B"), (1023, "1.02e+03 B"), (1536, "1.5 KiB"), (3 << 40, "3 TiB")],
)
def test_bytes_are_readable(count, text):
  assert format_bytes(count) == text


def test_runs_that_round_are_told_apart():
  info = RunInfo("a", "c", 5, "h", "t", "s", 0, 256, 1_000_000, None)
  rounded = info._replace(kv_dtype="int8")
  assert (info.name, rounded.name) == ("a", "a (int8)")
