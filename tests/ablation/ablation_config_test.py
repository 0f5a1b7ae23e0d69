"""configs/ablation.py: cells differ in what they claim, in nothing else."""

import importlib.util
import pathlib
import subprocess
import sys
import time

import jax
import pytest
from flax import nnx

from hsa_jax.ablation import load_grid, select
from hsa_jax.ablation.check import TOLERANCE, check, unclaimed
from hsa_jax.ablation.resolve import changed_fields, resolve, resolve_all
from hsa_jax.cli.override_flag import overridden, read_overrides
from hsa_jax.config import ConfigError, covers, validate, with_overrides
from hsa_jax.models import LanguageModel
from hsa_jax.models.parameters import count_parameters

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILE = ROOT / "configs" / "ablation.py"
SIZES = ("tiny", "smoke", "small", "paper")

# What each cell of `tiny` changes, beside the matched width. Whoever changes a
# cell changes this list, and sees what the change does.
LAST = "data.stages[1]"
GROUP = f"{LAST}.neg_sampling_group"
NO_MEMORY = "hsa.num_groups num_lower_layers num_upper_layers mlp_dim"
GOLDEN = {
  "A0": "hsa.encoder_layers hsa.landmark hsa.residual mlp_dim",
  "A1-none": "hsa.encoder_layers hsa.landmark mlp_dim",
  "A1-layers2": "hsa.encoder_layers mlp_dim",
  "A2-mean": "hsa.landmark",
  "A3-standard": "hsa.residual",
  "A4-encoder": "hsa.landmark hsa.residual",
  "A5-stick_breaking": "hsa.weighting",
  "A5-softmax_decay": "hsa.weighting",
  "A5-mass": "hsa.weighting",
  "A6-k8": "hsa.top_k",
  "A6-k16": "hsa.top_k",
  "A6-k64": "hsa.top_k",
  "A6-grow": "train.top_k_schedule",
  "A6-dense": "hsa.top_k train.top_k_schedule",
  "A7-rows512": f"{LAST}.seq_len {LAST}.batch_size {LAST}.sources",
  "A7-rows2048": f"{LAST}.seq_len {LAST}.batch_size {LAST}.sources",
  "A8-every4": "hsa.tokens_per_retrieval",
  "A8-every16": "hsa.tokens_per_retrieval",
  "A10-chunk8": "hsa.chunk_size",
  "A10-chunk32": "hsa.chunk_size",
  "A10-chunk64": "hsa.chunk_size",
  "A11-window64": "window_size",
  "A11-window128": "window_size",
  "A11-warm": "window_size train.window_schedule",
  "A12-none": "position",
  "A12-absolute_rope": "position",
  "A12-read": "hsa.position",
  "A13-twice": "hsa.num_groups num_upper_layers mlp_dim",
  "A13-heads": "hsa.num_memory_heads mlp_dim",
  "A13-shallow": "num_lower_layers num_upper_layers",
  "A14-sink": "hsa.sink",
  "A14-qk_norm": "hsa.qk_norm",
  "A14-gumbel": "hsa.selection_noise",
  "A14-exclude": "hsa.window_overlap",
  "A14-prenorm": "hsa.encoder_prenorm",
  "A14-landmark_norm": "hsa.landmark_norm",
  "A14-block_window": "hsa.block_window mlp_dim",
  "A9-k4to16": "",
  "A9-k16to4": "hsa.top_k",
  "S1-copy": "data.stages",
  "S2-segments2": f"{LAST}.seq_len {LAST}.batch_size {GROUP}",
  "S2-segments4": f"{LAST}.seq_len {LAST}.batch_size {GROUP}",
  "B1-rope": f"layers {NO_MEMORY}",
  "B1-yarn": f"layers {NO_MEMORY}",
  "B2-window": NO_MEMORY,
  "B3-stick": f"layers {NO_MEMORY}",
  "B7-nope": f"layers {NO_MEMORY}",
}


@pytest.fixture(scope="module", params=SIZES)
def sized(request):
  return load_grid(FILE, request.param)


@pytest.fixture(scope="module")
def tiny():
  return load_grid(FILE, "tiny")


@pytest.mark.parametrize("size", SIZES)
def test_sparsity_takes_away_one_rule_at_a_time(size):
  grid = load_grid(FILE, size)
  found, _ = resolve_all(grid, select(grid, subset="sparsity"))
  base, *others = (one.cfg for one in found)
  assert len(others) == 3

  def sparsity(cfg) -> tuple[float, int, int]:
    """Chunks of a row to a slot, tokens of a row, tokens to a retrieval."""
    hsa, rows = cfg.model.hsa, cfg.data.stages[-1].seq_len
    return (
      rows / hsa.chunk_size / hsa.top_k,
      rows,
      hsa.tokens_per_retrieval,
    )

  few, rows, _ = sparsity(base)
  assert few > 4
  assert [sparsity(cfg) for cfg in others] == [
    (1, rows, 1),
    (few / 2, rows // 2, 1),
    (few, rows, base.model.hsa.chunk_size),
  ]


def test_every_size_is_valid(sized):
  found, problems = check(sized, sized.all_cells(), {})
  assert not problems
  assert len(found) == len(sized.all_cells()) >= 30


def test_cells_differ_in_what_they_claim_and_in_nothing_else(sized):
  found, _ = resolve_all(sized, sized.all_cells())
  for one in found:
    assert not unclaimed(sized, one, {}), one.cell.name
    changed = changed_fields(sized.base, one.cfg)
    for path in one.cell.overrides:
      assert any(covers(path, line.split(":")[0]) for line in changed), (
        f"{one.cell.name}: {path} is overridden with the value it had"
      )


def test_matched_cells_have_the_parameters_of_the_base(sized):
  found, _ = resolve_all(sized, sized.all_cells())
  base = count_parameters(sized.base.model).total
  sizes = {o.cell.name: o.parameters for o in found if o.cell.matched}
  assert len(sizes) >= 14
  for name, size in sizes.items():
    assert abs(size / base - 1) <= TOLERANCE, name


@pytest.mark.parametrize(
  "name",
  [
    "base",
    "A0",
    "A1-layers2",
    "A13-twice",
    "A13-heads",
    "B2-window",
    "B3-stick",
  ],
)
def test_counts_are_those_of_the_built_model(tiny, name):
  (cell,) = [c for c in tiny.all_cells() if c.name == name]
  one = resolve(tiny, cell)
  shapes = nnx.eval_shape(
    lambda: LanguageModel(one.cfg.model, rngs=nnx.Rngs(0))
  )
  leaves = jax.tree.leaves(nnx.state(shapes, nnx.Param))
  assert sum(leaf.size for leaf in leaves) == one.parameters


def test_golden_changes_of_tiny(tiny):
  found, _ = resolve_all(tiny, tiny.cells)
  assert [one.cell.name for one in found] == list(GOLDEN)
  for one in found:
    changed = [x.split(":")[0] for x in changed_fields(tiny.base, one.cfg)]
    paths = [full_path(part) for part in GOLDEN[one.cell.name].split()]
    for path in paths:
      assert any(covers(path, c) for c in changed), (one.cell.name, path)
    for c in changed:
      assert any(covers(path, c) for path in paths), (one.cell.name, c)


def full_path(part: str) -> str:
  own = part.startswith(("data.", "train."))
  return part if own else f"model.{part}"


def test_evaluations_of_cells_are_those_that_eval_takes(sized):
  found, _ = resolve_all(sized, sized.all_cells())
  seen = 0
  for one in found:
    for flag in one.cell.eval_flags:
      values = read_overrides(flag.removeprefix("--override="))
      changed = overridden(one.cfg, values)
      assert values and changed.model != one.cfg.model
      seen += 1
  assert seen >= 4


def test_undefined_combinations_are_refused(tiny):
  assert len(tiny.undefined) == 2
  for one in tiny.undefined:
    with pytest.raises(ConfigError, match="needs model.hsa.encoder_layers"):
      validate(with_overrides(tiny.base, one.overrides))


def test_the_cube_of_principles_is_whole(tiny):
  """Six models and two combinations without one."""
  corners = set()
  for cell in tiny.all_cells():
    if cell.name in tiny_cube(tiny):
      hsa = resolve(tiny, cell).cfg.model.hsa
      corners.add(
        (hsa.encoder_layers > 0, str(hsa.landmark), str(hsa.residual))
      )
  for one in tiny.undefined:
    hsa = with_overrides(tiny.base, one.overrides).model.hsa
    corners.add((hsa.encoder_layers > 0, str(hsa.landmark), str(hsa.residual)))
  assert len(corners) == 8


def tiny_cube(grid) -> list[str]:
  members = ("base", *grid.subsets["principles"])
  names = [cell.name for cell in grid.all_cells()]
  return [
    n
    for n in names
    if any(n == m or n.startswith(m + "-") for m in members)
    and not n.startswith("B")
  ]


def test_every_cell_is_in_a_subset(tiny):
  listed = {m for members in tiny.subsets.values() for m in members}
  for cell in tiny.cells:
    assert any(
      cell.name == m or cell.name.startswith(m + "-") for m in listed
    ), cell.name


def test_cells_can_be_trained_by_hand():
  spec = importlib.util.spec_from_file_location("grid", FILE)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  cfg = module.get_config("tiny/A3-standard")
  assert cfg.model.hsa.residual == "standard"


def test_listing_needs_no_device_and_takes_seconds():
  start = time.monotonic()
  done = subprocess.run(
    [
      sys.executable,
      "-m",
      "hsa_jax.cli.sweep",
      "--config=configs/ablation.py",
      "--list",
    ],
    cwd=ROOT,
    env={"JAX_PLATFORMS": "nonesuch", "PATH": "", "PYTHONPATH": str(ROOT)},
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr
  # Ten seconds are promised on a machine that does nothing else.
  assert time.monotonic() - start < 60
  lines = done.stdout.splitlines()
  for name in ("base", "A0", "B2-window"):
    (line,) = [x for x in lines if x.split()[:1] == [name]]
    assert len(line.split()) >= 5
  assert any("undefined: a CLS token" in line for line in lines)
