"""configs/companions.py: whole other systems as cells of one grid."""

import importlib
import json
import pathlib

import pytest

from hsa_jax.ablation import load_grid, make_runs
from hsa_jax.ablation.attention import COLUMNS, attention_table, strongest
from hsa_jax.ablation.check import TOLERANCE, check
from hsa_jax.ablation.report import write_report
from hsa_jax.ablation.resolve import resolve_all
from hsa_jax.ablation.state import eval_folder, folder_of
from hsa_jax.cli.override_flag import overridden, read_overrides
from hsa_jax.config import from_dict
from hsa_jax.evaluation.lengths import parse_lengths
from hsa_jax.models.parameters import count_parameters

FILE = pathlib.Path(__file__).parents[2] / "configs" / "companions.py"
FILES = {
  "full-rope": "full_rope_tiny",
  "full-yarn": "full_rope_tiny",
  "full-nope": "full_nope_tiny",
  "rnope": "rnope_swa_tiny",
  "stick": "stick_breaking_tiny",
  "window": "quickstart_swa",
  "mamba2": "mamba2_tiny",
  "gla": "gla_tiny",
  "ramba": "ramba_tiny",
  "drt": "drt_tiny",
}


@pytest.fixture(scope="module")
def tiny():
  return load_grid(FILE, "tiny")


@pytest.mark.parametrize("size", ["tiny", "smoke"])
def test_every_size_is_valid(size):
  grid = load_grid(FILE, size)
  found, problems = check(grid, grid.all_cells(), {})
  assert not problems and len(found) == 1 + len(FILES)


def test_a_cell_is_the_configuration_of_its_file(tiny):
  found, _ = resolve_all(tiny, tiny.cells)
  assert [one.cell.name for one in found] == list(FILES)
  for one in found:
    file = importlib.import_module(f"configs.{FILES[one.cell.name]}")
    assert one.cfg == from_dict(file.get_config())


def test_all_have_the_size_of_the_base(tiny):
  found, _ = resolve_all(tiny, tiny.cells)
  base = count_parameters(tiny.base.model).total
  for one in found:
    assert abs(one.parameters / base - 1) <= TOLERANCE, one.cell.name


@pytest.mark.parametrize("size", ["tiny", "smoke"])
def test_yarn_is_another_look_at_one_run(size, tmp_path):
  grid = load_grid(FILE, size)
  found, _ = resolve_all(grid, [c for c in grid.cells if c.name[:4] == "full"])
  plain, yarn, _ = make_runs(found, (0,))
  assert plain.hash == yarn.hash
  folder = folder_of(tmp_path, plain)
  assert eval_folder(folder, plain.cell) != eval_folder(folder, yarn.cell)
  (flag,) = yarn.cell.eval_flags
  values = read_overrides(flag.removeprefix("--override="))
  rope = overridden(yarn.cfg, values).model.rope
  own = grid.measures_of(yarn.cell)
  measured = [n for m in own for n in parse_lengths(m.lengths)]
  trained = max(stage.seq_len for stage in yarn.cfg.data.stages)
  assert rope.original_length == trained
  assert rope.factor * trained == max(measured)


def test_where_full_layers_look_is_asked_of_those_that_have_them(tiny):
  for cell in tiny.all_cells():
    suites = [m.suites for m in tiny.measures_of(cell)]
    full = cell.name.startswith(("full", "rnope"))
    assert ("effective_attention" in suites) == full


def test_what_grows_with_the_square_of_the_length_is_not_asked_far(tiny):
  reach = {
    cell.name: max(
      n for m in tiny.measures_of(cell) for n in parse_lengths(m.lengths)
    )
    for cell in tiny.all_cells()
  }
  full = {name for name, far in reach.items() if far == 2**14}
  assert full == {"full-rope", "full-yarn", "full-nope", "rnope", "stick"}
  assert {far for name, far in reach.items() if name not in full} == {2**20}


def line(seed: int, needle: float, length: int = 1024) -> dict:
  """A layer that looks elsewhere, and one that finds the needle."""
  near = dict.fromkeys(COLUMNS, 0.1)
  far = {**near, "needle": needle, "entropy_nats": 2.0}
  layers = [{"layer": 3, **near}, {"layer": 7, **far}]
  return {
    "cell": "rnope",
    "seed": seed,
    "haystack": "text",
    "length": length,
    "attention": layers,
  }


def test_the_attention_table_has_the_layer_that_finds_the_needle():
  lines = [line(0, 0.5), line(1, 0.7), line(0, 0.3, 256), {"cell": "stick"}]
  layer, means = strongest(lines[:2])
  assert layer == 7 and means["needle"] == pytest.approx(0.6)
  *_, table = attention_table(lines, ["base", "rnope", "stick"])
  texts = [[cell.text for cell in row] for row in table.rows]
  rest = ["0.100", "0.100", "2.000"]
  assert texts == [
    ["rnope", "text", "256", "7", "1", "0.100", "0.300", *rest],
    ["rnope", "text", "1K", "7", "2", "0.100", "0.600", *rest],
  ]
  assert attention_table(lines, ["stick"]) == []


def test_one_figure_of_all_systems(tiny, tmp_path):
  found, _ = resolve_all(tiny, tiny.all_cells())
  runs = make_runs(found, (0,))
  for i, run in enumerate(runs):
    folder = folder_of(tmp_path, run)
    (folder / "checkpoints" / str(run.cfg.num_steps)).mkdir(
      parents=True, exist_ok=True
    )
    place = eval_folder(folder, run.cell)
    place.mkdir()
    common = {"protocol": "x", "haystack": "text", "needle": "digits"}
    common |= {"length": 1024, "num_samples": 10, "tokens_per_s": 1.0}
    rows = [
      {"suite": "hsa_ruler", "task": "s_niah", "score": 0.1 * i, **common},
      {
        **common,
        **line(0, 0.5),
        "suite": "effective_attention",
        "task": "attention_s_niah",
        "score": 0.5,
      },
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (place / "results.jsonl").write_text(text)
  path = write_report(tiny, found, runs, tmp_path, tmp_path / "report")
  told = path.read_text()
  assert (tmp_path / "report" / "accuracy_systems.png").stat().st_size > 10_000
  assert "## systems" in told and "### Effective attention" in told
  for name in ("base", *FILES):
    assert f"| {name} " in told
