"""Cells, subsets, matching, identity of runs: what needs no device."""

import dataclasses

import pytest

from hsa_jax.ablation import (
  Cell,
  GridError,
  Measure,
  cell_config,
  make_runs,
  resolve,
  select,
)
from hsa_jax.ablation.check import check
from hsa_jax.ablation.resolve import changed_fields, resolve_all
from hsa_jax.config import (
  ConfigError,
  config_hash,
  covers,
  from_dict,
  with_overrides,
)
from hsa_jax.models.parameters import count_parameters

from .grids import CELLS, NONE, base, grid


def cell(name="X", matched=False, **overrides) -> Cell:
  paths = {path.replace("__", "."): value for path, value in overrides.items()}
  return Cell(name, "axis", "claim", paths, matched)


def follower(after: str) -> Cell:
  return dataclasses.replace(cell("P"), after=after)


def test_selection_brings_what_a_cell_begins_with():
  later = dataclasses.replace(CELLS[2], name="P", after="A2-mean")
  made = grid(cells=(*CELLS, later))
  names = [one.name for one in select(made, cells=["P"])]
  assert names == ["base", "A2-mean", "P"]
  found, problems = check(made, made.all_cells(), {})
  assert not problems, "the same fields, and another beginning"
  (alone,) = make_runs([found[-1]], [3])
  assert alone.after is not None
  assert alone.after.cell.name == "A2-mean"
  assert alone.after.seed == 3


def test_a_cell_must_have_the_model_that_it_begins_with():
  options = dataclasses.replace(
    cell("P", model__hsa__top_k=1), after="base"
  )  # No parameter depends on it.
  made = grid(cells=(*CELLS, options))
  assert not check(made, made.all_cells(), {})[1]
  other = dataclasses.replace(follower("A1-two"), name="Q")
  made = grid(cells=(*CELLS, other))
  (problem,) = check(made, made.all_cells(), {})[1]
  assert problem.startswith("Q: begins with 'A1-two', another model: ")


def test_selection_takes_names_groups_and_subsets():
  names = lambda cells: [c.name for c in cells]  # noqa: E731
  assert names(select(grid())) == ["base", "A1-none", "A1-two", "A2-mean"]
  assert names(select(grid(), cells=["A1"])) == ["base", "A1-none", "A1-two"]
  assert names(select(grid(), cells=["A1-two"])) == ["base", "A1-two"]
  assert names(select(grid(), subset="landmarks")) == ["base", "A2-mean"]


@pytest.mark.parametrize(
  ("asked", "message"),
  [
    ({"cells": ["A1-non"]}, "'A1-non' names no cell; did you mean 'A1-none'"),
    ({"cells": ["A"]}, "'A' names no cell"),
    ({"subset": "landmark"}, "must be one of landmarks; did you mean"),
  ],
)
def test_unknown_names_are_refused(asked, message):
  with pytest.raises(GridError, match=message):
    select(grid(), **asked)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"cells": (*CELLS, CELLS[0])}, "'A1-none': defined twice"),
    ({"cells": (*CELLS, cell("base"))}, "'base': defined twice"),
    ({"subsets": {"x": ("A9",)}}, "subset 'x': 'A9' names no cell"),
    (
      {"measures": (Measure("1K", "2", cells=("A7",)),)},
      "measure of 1K: 'A7' names no cell",
    ),
    ({"cells": (follower("A1-one"), *CELLS)}, "'P': after = 'A1-one' names no"),
    ({"cells": (follower("P"), *CELLS)}, "'P': after = 'P' names no cell"),
  ],
)
def test_a_malformed_grid_is_refused(changes, message):
  with pytest.raises(GridError, match=message):
    grid(**changes)


@pytest.mark.parametrize(
  ("more", "counts"), [((), [1, 1, 2]), (("A1",), [1, 2, 2])]
)
def test_what_costs_much_is_measured_of_few(more, counts):
  made = grid().with_finalists(more)
  by_name = {c.name: made.measures_of(c) for c in made.all_cells()}
  found = [len(by_name[n]) for n in ("base", "A1-none", "A2-mean")]
  assert found == counts


def test_overrides_reach_every_depth():
  cfg = with_overrides(
    base(), {"model.hsa.top_k": 3, "data.stages[0].seq_len": 320}
  )
  assert (cfg.model.hsa.top_k, cfg.data.stages[0].seq_len) == (3, 320)
  assert cfg.model.hsa.chunk_size == base().model.hsa.chunk_size
  assert with_overrides(base(), {}) == base()


@pytest.mark.parametrize(
  ("path", "value", "message"),
  [
    ("model.hsa.topk", 3, "model.hsa.topk = 3: no such.*'top_k'"),
    ("model.has.top_k", 3, "no 'has' in model"),
    ("data.stages[1].seq_len", 8, "there is no 1 in data.stages"),
    ("model.hsa.top_k", "3", "top_k = '3': must be int"),
    ("model.hsa.landmark", "medn", "did you mean 'mean'"),
    ("model..x", 1, "not a path"),
  ],
)
def test_a_bad_override_is_one_line(path, value, message):
  with pytest.raises(ConfigError, match=message):
    with_overrides(base(), {path: value})


def test_a_path_covers_what_lies_below_it():
  assert covers("data.stages", "data.stages[1].seq_len")
  assert covers("model.hsa", "model.hsa.top_k")
  assert not covers("model.hsa.top_k", "model.hsa.top_kk")


def test_matching_keeps_the_parameters():
  one = resolve(grid(), CELLS[0])
  target = count_parameters(base().model).total
  assert one.parameters == count_parameters(one.cfg.model).total
  assert abs(one.parameters / target - 1) < 0.01
  unmatched = dataclasses.replace(CELLS[0], matched=False)
  assert abs(resolve(grid(), unmatched).parameters / target - 1) > 0.01


def test_matching_that_fails_names_the_cell():
  huge = cell("X", True, model__num_lower_layers=12)
  made = grid(cells=(*CELLS, huge))
  with pytest.raises(ConfigError, match="'X'\n.*matched: mlp_dim = 1 gives"):
    resolve(made, huge)


def test_changed_fields_name_old_and_new():
  schedule = {"train.top_k_schedule": ((0, 1), (2, 2))}
  cfg = with_overrides(base(), {**schedule, "data.stages[0].seq_len": 8})
  assert changed_fields(base(), cfg) == [
    "data.stages[0].seq_len: 160 -> 8",
    "train.top_k_schedule: () -> ((0, 1), (2, 2))",
  ]


def test_runs_are_known_by_their_configuration():
  found, problems = resolve_all(grid(), grid().all_cells())
  runs = make_runs(found, [0, 1])
  assert not problems
  assert len({run.hash for run in runs}) == len(runs) == 8
  assert [run.name for run in runs[:2]] == ["base-s0", "A1-none-s0"]
  assert all(run.cfg.train.seed == run.seed for run in runs)
  assert runs[0].hash == config_hash(base())
  again = make_runs(found, [1])
  assert again[0].hash == runs[4].hash


def test_a_cell_is_a_config_of_its_own():
  made = cell_config(lambda size: grid(size=size), "test/A1-none")
  assert from_dict(made) == resolve(grid(), CELLS[0]).cfg
  assert from_dict(cell_config(lambda size: grid(), "test")) == base()
  with pytest.raises(GridError, match="'A9' is no cell of this grid"):
    cell_config(lambda size: grid(), "test/A9")


def test_a_valid_grid_has_no_problems():
  found, problems = check(grid(), grid().all_cells(), {})
  assert not problems
  assert len(found) == 4


def test_every_problem_of_every_cell_is_told():
  bad = cell(
    "B1", model__hsa__top_k=0, model__num_kv_heads=3, model__head_dim=15
  )
  short = cell("B2", **{"data__stages": tuple(short_stages())})
  copy = cell("B3")
  made = grid(cells=(*CELLS, bad, short, copy))
  found, problems = check(made, made.all_cells(), {})
  text = "\n".join(problems)
  assert [one.cell.name for one in found][-2:] == ["B2", "B3"]
  for line in (
    "B1: model.hsa.top_k = 0: must be at least 1",
    "B1: model.num_kv_heads = 3: must divide",
    "B1: model.head_dim = 15: must be even",
    "B2: data.stages[0].seq_len = 20: source 0",
    "B3: the same configuration as 'base'",
  ):
    assert line in text, text


def short_stages():
  source = {"task": "niah"}
  yield {**vars_of(base().data.stages[0]), "seq_len": 20, "sources": (source,)}


def vars_of(value):
  return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}


def test_undefined_combinations_must_be_refused_by_the_rules():
  (one,) = grid().undefined
  valid = dataclasses.replace(one, overrides=NONE)
  _, problems = check(grid(undefined=(valid,)), (), {})
  assert problems == [
    "A4-cls: said to be undefined, but it is a valid configuration"
  ]


def test_measures_are_checked():
  measure = dataclasses.replace(
    grid().measures[0], tasks="s_nia", lengths="1X", samples="x"
  )
  _, problems = check(grid(measures=(measure,)), (), {})
  assert len(problems) == 3
  assert "task 's_nia' is not one of" in problems[0]


@pytest.mark.parametrize(
  ("extra", "message"),
  [
    ({"model.mlp_dim": 8}, "the model belongs to the grid file"),
    ({"train.wandb_projct": "x"}, "no such field"),
  ],
)
def test_overrides_of_the_command_line(extra, message):
  _, problems = check(grid(), grid().all_cells(), extra)
  assert message in "\n".join(problems)


def test_an_override_must_not_undo_a_cell():
  own = cell("X", **{"train__top_k_schedule": ((0, 1),)})
  made = grid(cells=(own,), subsets={}, measures=())
  _, problems = check(made, made.all_cells(), {"train.top_k_schedule": ()})
  assert "cell 'X' sets train.top_k_schedule" in problems[0]
  _, problems = check(made, made.all_cells(), {"train.log_every": 7})
  assert not problems
