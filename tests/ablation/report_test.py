"""Reports of planted results: what is counted, and what is left out."""

import csv
import dataclasses
import json
import shutil

import pytest

from hsa_jax.ablation import Cell, GridError, make_runs, select
from hsa_jax.ablation.glance import glance
from hsa_jax.ablation.records import (
  collect,
  is_stored,
  read_stored,
  write_records,
)
from hsa_jax.ablation.report import write_report
from hsa_jax.ablation.resolve import resolve_all
from hsa_jax.ablation.state import add_event, eval_folder, folder_of
from hsa_jax.ablation.summary import summarise
from hsa_jax.evaluation import pages

from .grids import CELLS, grid

SEEDS = (0, 1, 2)


def plan(made, cells=()):
  found, _ = resolve_all(made, select(made, cells=cells))
  return found, make_runs(found, SEEDS)


def result(length, right, samples=10, **more) -> dict:
  return {
    "suite": "hsa_ruler",
    "protocol": "x",
    "task": "s_niah",
    "haystack": "text",
    "needle": "digits",
    "length": length,
    "num_samples": samples,
    "score": right / samples,
    "num_correct": right,
    "token_accuracy": 0.9 + 0.01 * right,
    "recall_at_k": 0.75,
    "p_correct_given_recalled": 0.5,
    "tokens_per_s": 1.0,
    **more,
  }


def text(length, perplexity) -> dict:
  line = result(length, 0, suite="ppl", task="last_8", haystack="", needle="")
  for name in (
    "token_accuracy",
    "num_correct",
    "recall_at_k",
    "p_correct_given_recalled",
  ):
    del line[name]
  return {**line, "score": 1.5, "perplexity": perplexity}


RIGHT = {"base": (10, 9, 10), "A1-none": (2, 4, 3), "A2-mean": (10, 9, 10)}


def plant(workdir, runs) -> None:
  """Every run trained, three cells of four evaluated."""
  for run in runs:
    folder = folder_of(workdir, run)
    (folder / "checkpoints" / str(run.cfg.num_steps)).mkdir(parents=True)
    add_event(folder, "train", (), 0, 60.0)
    if run.cell.name not in RIGHT:
      continue
    right = RIGHT[run.cell.name][run.seed]
    lines = [result(256, right), result(1024, right - 1), text(256, 3.5)]
    (folder / "eval").mkdir()
    (folder / "eval" / "results.jsonl").write_text(
      "".join(json.dumps(line) + "\n" for line in lines)
    )


@pytest.fixture
def planted(tmp_path):
  made = grid()
  found, runs = plan(made)
  plant(tmp_path / "grid", runs)
  return made, found, runs, tmp_path


def test_points_are_means_over_seeds_and_paired_differences(planted):
  _, _, runs, root = planted
  points = {
    (p.cell, p.table.task, p.length): p
    for p in summarise(collect(root / "grid", runs))
    if p.table.figure != "token_accuracy"
  }
  point = points["A1-none", "s_niah", 256]
  assert point.value.mean == pytest.approx(0.3)
  assert point.difference.mean == pytest.approx(0.3 - 29 / 30)
  assert point.difference.num_seeds == 3
  assert (point.recall, point.precision) == (0.75, 0.5)
  assert points["base", "s_niah", 256].difference is None
  assert points["A2-mean", "s_niah", 256].difference.mean == 0
  assert points["base", "last_8", 256].value.mean == 3.5
  assert not any(cell == "A1-two" for cell, _, _ in points)


def read_summary(root) -> str:
  return (root / "out" / "summary.csv").read_text()


def test_the_report_has_tables_pictures_and_a_csv(planted):
  made, found, runs, root = planted
  path = write_report(made, found, runs, root / "grid", root / "out")
  page = path.read_text()
  assert "0.30 [0.05, 0.55]" in page
  assert "-0.67 [-1.00, -0.29]*" in page
  assert "0.75 / 0.50" in page
  assert "s_niah, answer tokens" in page and "0.93 [0.91, 0.95]" in page
  assert "## landmarks" in page and "## other cells" in page
  assert "`A4-cls`: no encoder" in page
  rows = list(csv.DictReader(read_summary(root).splitlines()))
  assert len(rows) == 15
  assert float(rows[0]["mean"]) == pytest.approx(29 / 30)
  pictures = sorted(p.name for p in (root / "out").glob("*.png"))
  assert pictures == [
    f"{kind}_{part}.png"
    for kind, part in (
      ("accuracy", "landmarks"),
      ("accuracy", "other_cells"),
      ("perplexity", "landmarks_last_8"),
      ("perplexity", "other_cells_last_8"),
      ("retrieval", "landmarks"),
      ("retrieval", "other_cells"),
    )
  ]
  assert all((root / "out" / name).stat().st_size > 5000 for name in pictures)


def test_a_report_is_remade_from_its_records_alone(planted):
  made, found, runs, root = planted
  out = root / "out"
  before = write_report(made, found, runs, root / "grid", out).read_text()
  for path in out.iterdir():
    if path.name != "records.jsonl":
      path.unlink()
  assert write_report(made, found, runs, root / "gone", out).read_text() == (
    before
  )


def test_records_stand_in_for_runs_that_are_gone(planted):
  made, found, runs, root = planted
  out = root / "out"
  write_report(made, found, runs, root / "grid", out)
  shutil.rmtree(folder_of(root / "grid", runs[0]))
  lines = collect(root / "grid", runs, out)
  assert {line["hash"] for line in lines} == {
    run.hash for run in runs if run.cell.name in RIGHT
  }


def test_a_smaller_report_leaves_the_records_of_others(planted):
  made, found, runs, root = planted
  out = root / "out"
  write_report(made, found, runs, root / "grid", out)
  whole = read_stored(out)
  for few in (runs[:1], make_runs(found[:2], SEEDS)):
    write_report(made, found, few, root / "gone", out)
    assert read_stored(out) == whole


def test_lines_of_an_earlier_form_of_a_cell_make_room(planted):
  _, _, runs, root = planted
  lines = collect(root / "grid", runs)
  write_records(root, [{**line, "hash": "old"} for line in lines], runs)
  write_records(root, lines, runs)
  assert {key for key, _ in read_stored(root)} == {x["hash"] for x in lines}


def test_a_run_is_stored_once_all_its_measures_are(planted):
  made, _, runs, root = planted
  stored = read_stored(root)
  assert not is_stored(stored, runs[0], ())
  write_records(root, collect(root / "grid", runs), runs)
  stored = read_stored(root)
  first = made.measures[0]
  for measures, there in (
    ((first,), True),
    ((first, dataclasses.replace(first, lengths="1K")), True),
    ((dataclasses.replace(first, lengths="256,4K"),), False),
    ((dataclasses.replace(first, suites="hsa_ruler,ppl"),), True),
    ((dataclasses.replace(first, suites="passkey"),), False),
  ):
    assert is_stored(stored, runs[0], measures) == there, measures
  missing = next(run for run in runs if run.cell.name == "A1-two")
  assert not is_stored(stored, missing, made.measures)
  assert not is_stored(stored, runs[0], made.measures), "nor 512"


def test_a_glance_is_near_far_and_farthest():
  lines = [
    {**result(length, right), "cell": cell, "seed": 0}
    for cell, right in (("base", 9), ("A1", 0))
    for length in (512, 1024, 4096, 65_536, 131_072, 262_144)
  ]
  lines += [
    {**line, "task": "hard", "score": 0.05, "num_correct": 1} for line in lines
  ]
  blocks = glance(summarise(lines), train_length=1024)
  words = [b.text for b in blocks if isinstance(b, pages.Paragraph)]
  assert [text.split(",")[0] for text in words] == [
    f"At {length} tokens" for length in ("1K", "64K", "256K")
  ]
  assert words[1].endswith("64 times the longest row of training:")
  for table in (b for b in blocks if isinstance(b, pages.Table)):
    assert [str(name) for name in table.header] == [
      *("cell", "seeds", "s_niah", "minus the base"),
      *("hard, answer tokens", "minus the base"),
    ]


def by_position(*perplexities: float) -> dict:
  """A line of whole windows: positions 0 to 1, 2 to 3, 4 to 7, ..."""
  lasts = [2 ** (i + 1) - 1 for i in range(len(perplexities))]
  buckets = [
    {"last": last, "perplexity": value}
    for last, value in zip(lasts, perplexities, strict=True)
  ]
  line = text(lasts[-1] + 1, 4.0)
  return {**line, "task": "by_position", "buckets": buckets}


def test_perplexity_by_position_is_a_mean_over_seeds(planted):
  made, found, runs, root = planted
  for run in runs:
    if run.cell.name in RIGHT:
      path = folder_of(root / "grid", run) / "eval" / "results.jsonl"
      with path.open("a") as file:
        file.write(json.dumps(by_position(9, 3 + run.seed, 2)) + "\n")
  page = write_report(made, found, runs, root / "grid", root / "out")
  words = page.read_text()
  part = words[words.index("### Perplexity by position") :]
  rows = [line for line in part.splitlines() if line.startswith("| base")]
  cells = [cell.strip() for cell in rows[0].split("|")[1:-1]]
  assert cells == ["base", "9.00", "4.00 [1.52, 6.48]", "2.00"]
  assert "perplexity_by_position_landmarks.png" in part
  for name in ("landmarks", "other_cells"):
    picture = root / "out" / f"perplexity_by_position_{name}.png"
    assert picture.stat().st_size > 5000
  assert "by_position" not in read_summary(root), "its lengths are no contexts"


def test_two_evaluations_of_one_run_are_kept_apart(tmp_path):
  wide = Cell("A9", "K", "K may change", {}, eval_flags=("--batch=2",))
  made = grid(cells=(*CELLS, wide))
  found, runs = plan(made, ["A9"])
  for run in runs:
    folder = folder_of(tmp_path / "grid", run)
    (folder / "checkpoints" / str(run.cfg.num_steps)).mkdir(
      parents=True, exist_ok=True
    )
    place = eval_folder(folder, run.cell)
    place.mkdir()
    right = 4 if run.cell.eval_flags else 8
    (place / "results.jsonl").write_text(json.dumps(result(256, right)) + "\n")
  out = tmp_path / "out"
  write_report(made, found, runs, tmp_path / "grid", out)
  for workdir in (tmp_path / "grid", tmp_path / "gone"):
    lines = collect(workdir, runs, out)
    scores = {(x["cell"], x["seed"]): x["score"] for x in lines}
    assert scores == {
      (cell, seed): right
      for cell, right in (("base", 0.8), ("A9", 0.4))
      for seed in SEEDS
    }


def test_one_section_where_a_subset_is_named(planted):
  made, _, _, root = planted
  found, _ = resolve_all(made, select(made, subset="landmarks"))
  runs = make_runs(found, SEEDS)
  out = root / "out"
  path = write_report(made, found, runs, root / "grid", out, subset="landmarks")
  assert "A1-none" not in path.read_text()


def test_results_of_another_grid_do_not_count(planted):
  made, _, runs, root = planted
  write_records(root, collect(root / "grid", runs), runs)
  changed = grid(base=grid().base.__class__(model=grid().base.model))
  _, others = plan(changed)
  assert collect(root, runs) and not collect(root, others)
  with pytest.raises(GridError, match="no run of this grid is finished"):
    write_report(made, [], others, root, root / "out")


DOC = """# A page

<!-- ablation test -->
old
<!-- end -->

after
"""


def test_a_page_gets_the_tables_between_its_marks(planted):
  made, found, runs, root = planted
  page = root / "page.md"
  page.write_text(DOC)
  for _ in range(2):
    write_report(made, found, runs, root / "grid", root / "out", doc=str(page))
  text = page.read_text()
  assert text.startswith("# A page") and text.endswith("after\n")
  assert "old" not in text and text.count("**Landmarks.**") == 1
  assert "| s_niah" in text and "At 1K tokens" in text
  assert "| A1-none" in text
  assert "[report](out/report.md)" in text
  page.write_text("# Without marks")
  with pytest.raises(GridError, match="<!-- ablation test -->"):
    write_report(made, found, runs, root / "grid", root / "out", doc=str(page))
