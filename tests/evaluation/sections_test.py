"""Reports of any suite: what the fields of the lines turn into."""

import csv
import io
import math

import numpy as np
import pytest

from hsa_jax.evaluation import plots, report, scores, sections, tables
from hsa_jax.evaluation.pages import Table, render_markdown
from hsa_jax.evaluation.results import ResultStore
from hsa_jax.evaluation.runs import (
  Kind,
  Run,
  Variant,
  load_run,
  load_runs,
  samples_of,
  variants,
)
from hsa_jax.evaluation.sections.diagnostics import find_reads, parse_reads
from hsa_jax.evaluation.sections.score import depth_samples
from hsa_jax.evaluation.sections.summary import (
  effective_length,
  mean_interval,
  means,
  summary_table,
)
from hsa_jax.evaluation.sections.text import curve_band, position_band
from tests.evaluation import report_cases as cases


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  """Every kind of line, in a folder with its report."""
  folder = tmp_path_factory.mktemp("whole")
  cases.make_run(folder, ruler=False, lengths=(1024, 4096))
  report.write_report(folder)
  return folder


def empty_store(folder, label="hsa"):
  return ResultStore(folder, cases.INFO._replace(label=label))


def read_csv(text):
  return list(csv.DictReader(io.StringIO(text)))


def test_every_kind_of_line_has_its_place(whole):
  text = (whole / "report.md").read_text()
  assert "## Suite hsa_ruler" in text and "## Held-out text" in text
  assert "## Suite effective_remembrance" in text
  assert "17.500 n=3" in text and "furlongs" in text  # nobody knows this suite
  linked = [
    line.rsplit("(", 1)[1].rstrip(")")
    for line in text.splitlines()
    if line.startswith("![")
  ]
  kinds = ("accuracy", "heat_map", "recall", "distances", "reads", "curve")
  kinds += ("by_position", "by_length")
  for kind in kinds:
    assert any(name.startswith(kind) for name in linked), kind
  for name in linked:
    assert (whole / name).stat().st_size > 8_000


def test_pictures_are_inside_the_page(whole):
  page = (whole / "report.html").read_text()
  pictures = (whole / "report.md").read_text().count("![")
  assert page.count('src="data:image/png;base64,') == pictures
  assert page.count("<img") == pictures
  assert "http:" not in page and "https:" not in page


def test_kinds_are_told_by_their_fields(whole):
  run = load_run(whole)
  found = {kind: [v.suite for v in variants([run], kind)] for kind in Kind}
  assert found[Kind.SCORE] == ["hsa_ruler"]
  assert found[Kind.TEXT] == ["ppl", "ppl"]
  assert found[Kind.CURVE] == ["effective_remembrance"]
  assert found[Kind.OTHER] == ["strange"]


def test_lines_without_anything_but_a_score_are_enough(tmp_path):
  store = empty_store(tmp_path)
  key = cases.key_fields("new", "task", 512, 7, haystack="", needle="")
  store.add_result({**key, "score": 0.5, "cost_bytes": 2048, "speed": 1.25})
  text = report.write_report(tmp_path).read_text()
  assert "0.500 n=7" in text and "2 KiB" in text and "1.25" in text


def test_a_folder_without_any_result_still_reports(tmp_path):
  empty_store(tmp_path)
  text = report.write_report(tmp_path).read_text()
  assert text.startswith("# Evaluation of hsa")
  assert (tmp_path / "report.html").exists()


def test_runs_of_one_name_are_told_apart(tmp_path):
  folders = [tmp_path / "a" / "eval", tmp_path / "b" / "eval"]
  for folder in folders:
    empty_store(folder)
  names = [run.name for run in load_runs([*folders, folders[0]])]
  assert names == ["hsa (a)", "hsa (b)", "hsa (a) #2"]


def test_shares_of_answer_tokens_carry_their_counts(tmp_path):
  store = empty_store(tmp_path)
  key = cases.key_fields("hsa_ruler", "s_niah", 512, 2)
  for i in range(2):
    counts = {"answer_tokens": 8, "recalled_tokens": 8 - i}
    store.add_prediction({**key, "sample": i, "correct": 1, **counts})
  line = {"score": 1.0, "num_correct": 2, "recall_at_k": 15 / 16}
  store.add_result({**key, **line, "metric": "exact_match"})
  assert "15/16 0.938" in report.write_report(tmp_path).read_text()


def ruler_run(folder, means_by_length, tasks=cases.RULER):
  store = empty_store(folder)
  for length, mean in means_by_length.items():
    for task in tasks:
      key = cases.key_fields(
        "ruler", task, length, 20, protocol="ruler-13", needle=""
      )
      right = round(20 * mean)
      cases.add_job(store, key, [1] * right + [0] * (20 - right))
  return load_run(folder)


def test_effective_length_is_the_longest_above_the_bar(tmp_path):
  run = ruler_run(tmp_path, {4096: 1.0, 8192: 0.9, 16_384: 0.85})
  found = variants([run], Kind.SCORE)
  got = means(run, found, "ruler-13")
  assert [round(m.value, 2) for m in got.values()] == [1.0, 0.9, 0.85]
  assert effective_length(run, found, "ruler-13") == 8192
  # All right is not certainty: 260 of 260.
  assert mean_interval(run, got[4096]) == scores.wilson(260, 260)
  low, high = mean_interval(run, got[8192]) or (0, 0)
  # Normal theory of 13 tasks of 20: 1.96 sqrt(0.09 / 260).
  assert (high - low) / 2 == pytest.approx(0.0365, rel=0.15)


def test_a_missing_task_is_said_and_no_effective_length(tmp_path):
  run = ruler_run(tmp_path, {4096: 1.0}, cases.RULER[:-2])
  found = variants([run], Kind.SCORE)
  assert effective_length(run, found, "ruler-13") is None
  text = render_markdown([summary_table([run], found)])
  assert "mean of ruler-13" in text and "(11 tasks)" in text
  assert "20/20" in text


def test_haystacks_of_one_task_do_not_weigh_twice(tmp_path):
  store = empty_store(tmp_path)
  for haystack, right in (("essay", 4), ("noise", 2)):
    key = cases.key_fields(
      "b", "qa1", 512, 4, protocol="babilong-v1", haystack=haystack
    )
    cases.add_job(store, key, [1] * right + [0] * (4 - right))
  key = cases.key_fields("b", "qa2", 512, 4, protocol="babilong-v1")
  cases.add_job(store, key, [0] * 4)
  run = load_run(tmp_path)
  got = means(run, variants([run], Kind.SCORE), "babilong-v1")
  assert got[512].value == pytest.approx((0.75 + 0) / 2)
  assert got[512].num_tasks == 2


def test_cells_have_their_intervals(tmp_path):
  store = empty_store(tmp_path)
  key = cases.key_fields("hsa_ruler", "s_niah", 512, 10)
  cases.add_job(store, key, [1, 1, 0, 1, 1, 1, 1, 1, 0, 0])
  rows = read_csv(tables.cells_csv([load_run(tmp_path)]))
  # Depths 5%, 15%, ...: two samples to each of five bins.
  assert [float(row["sum_of_scores"]) for row in rows] == [2, 1, 2, 2, 0]
  low, high = scores.wilson(1, 2)
  assert float(rows[1]["ci_low"]) == pytest.approx(low)
  assert float(rows[1]["ci_high"]) == pytest.approx(high)
  assert [float(row["depth_low"]) for row in rows] == [0, 0.2, 0.4, 0.6, 0.8]
  assert rows[0]["task"] == "s_niah" and rows[0]["length"] == "512"


def test_results_are_tidy(whole):
  rows = read_csv((whole / "results.csv").read_text())
  lines = load_run(whole).results
  assert len(rows) == len(lines)
  for row, line in zip(rows, lines, strict=True):
    assert row["run"] == "hsa" and int(row["length"]) == line["length"]
    assert float(row["score"]) == line["score"]
  assert rows[0]["perplexity"] == "" and rows[-1]["gap"] == "2"


def test_only_samples_behind_a_result_line_are_counted(tmp_path):
  store = empty_store(tmp_path)
  for count in (3, 5):  # asked again with more samples: the depths differ
    key = cases.key_fields("hsa_ruler", "s_niah", 512, count)
    cases.add_job(store, key, [1] * count)
  run = load_run(tmp_path)
  assert len(samples_of(run, run.results)) == 5
  (variant,) = variants([run], Kind.SCORE)
  assert len(depth_samples(run, variant)) == 5


def test_bands_of_positions_cover_the_documents(whole):
  run = load_run(whole)
  row = next(row for row in run.results if row.get("buckets"))
  band = position_band(run, row, "hsa")
  assert list(band.x) == [b["last"] for b in row["buckets"]]
  assert all(
    a < y < b for a, y, b in zip(band.low, band.y, band.high, strict=True)
  )
  # All buckets of a document are shifted alike, by N(0, 0.1) of 20 documents.
  width = math.log(band.high[5] / band.low[5])
  assert width == pytest.approx(2 * 1.96 * 0.1 / np.sqrt(20), rel=0.4)
  alone = position_band(run._replace(samples={}), row, "hsa")
  assert alone.low == alone.y == alone.high


def test_curves_run_over_the_tokens_kept():
  half = {"kept": 4, "mean": 0.5, "ci_low": 0.4, "ci_high": 0.6}
  row = {"curve": [{"kept": 8, "mean": 0.25}, half, {"kept": 0, "mean": 1.0}]}
  band = curve_band(row, "a")
  assert band == plots.Band("a", [4, 8], [0.5, 0.25], [0.4, 0.25], [0.6, 0.25])


def test_reads_are_taken_from_the_longest_context(whole):
  run = load_run(whole)
  found = find_reads(run, Variant("hsa_ruler", "p", "s_niah", "text", "digits"))
  assert found is not None
  sample, reads = found
  assert sample["length"] == 4096
  columns = plots.shown_chunks(reads)
  assert columns == sorted(columns) and 7 in columns
  table = plots.weight_table(reads, 0, columns)
  assert table.shape == (8, len(columns))
  assert (table[:, columns.index(7)] == 0.9).all()
  assert table.sum(axis=1) == pytest.approx(np.ones(8))


def test_too_many_chunks_leave_the_heaviest_and_the_gold():
  rng = np.random.default_rng(0)
  chunks = rng.permutation(500)[:400].reshape(50, 8)
  weights = rng.random((50, 8)) + 0.1
  gold = np.full(50, 777)  # never read at all
  reads = plots.Reads(["x"] * 50, gold, [chunks], [weights], 1000, ["g"])
  columns = plots.shown_chunks(reads)
  assert len(columns) == 36 and 777 in columns
  lightest = chunks.ravel()[weights.argmin()]
  heaviest = chunks.ravel()[weights.argmax()]
  assert heaviest in columns and lightest not in columns


def test_reads_without_weights_and_with_empty_slots():
  line = {
    "answer_tokens": ["a", "b"],
    "gold_chunks": [3, -1],
    "groups": [
      {"group": 0, "head": 0, "chunks": [[5, 3], []], "weights": None},
      {"group": 0, "head": 1, "chunks": [[9], [1, 2, 3]], "weights": None},
    ],
    "num_chunks": 12,
  }
  reads = parse_reads(line)
  assert reads.names == ["group 1, head 1", "group 1, head 2"]
  assert reads.chunks[0].tolist() == [[5, 3], [-1, -1]]
  assert reads.weights[1].tolist() == [[1, 0, 0], pytest.approx([1 / 3] * 3)]
  assert plots.shown_chunks(reads) == [1, 2, 3, 5, 9]


def test_a_second_metric_keeps_its_interval(tmp_path):
  store = empty_store(tmp_path)
  key = cases.key_fields("babilong", "qa1", 512, 4)
  lax = {"substring_score": 0.75}
  lax |= {"substring_ci_low": 0.3, "substring_ci_high": 0.95}
  cases.add_job(store, key, [1, 0, 0, 1], **lax)
  text = report.write_report(tmp_path).read_text()
  assert "| substring score" in text and "0.75 [0.30, 0.95]" in text


def test_several_runs_share_pictures_and_tables(tmp_path):
  for name, skill in (("hsa", 1.0), ("swa", 0.4)):
    fields = {"skill": skill, "lengths": (1024, 4096), "count": 4}
    cases.make_run(tmp_path / name, name, ruler=False, **fields)
  text = report.write_comparison(
    [tmp_path / "hsa", tmp_path / "swa"], tmp_path / "out"
  ).read_text()
  assert "| length | hsa " in text and "| tokens kept " in text
  assert "Bits per byte:" in text
  assert len(read_csv((tmp_path / "out" / "results.csv").read_text())) == 18


def test_other_tokenizers_are_not_compared_by_perplexity(tmp_path):
  runs = [Run(cases.INFO._replace(tokenizer=t), [], {}, t) for t in "ab"]
  store = empty_store(tmp_path)
  cases.add_text(store, level=1.0)
  lines = load_run(tmp_path).results
  runs = [run._replace(results=lines) for run in runs]
  blocks = sections.text_sections(runs, tmp_path)
  assert "The tokenizers differ" in render_markdown(blocks)
  assert any(isinstance(block, Table) for block in blocks)
