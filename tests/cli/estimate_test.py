"""The command: what it prints, what it refuses, and in which words."""

import importlib.util
import re

import pytest

from hsa_jax.cli import estimate
from hsa_jax.training import aot

# ml_collections loads the file in a way that Python will drop.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module")

PAPER = "--config=configs/paper_240m.py"
V5E = "--topology=v5e:4x4"
NEVER = "--compile=never"
TENSOR = ("--config.mesh.data=1", "--config.mesh.tensor=-1")


def run(capsys, *flags: str) -> tuple[int, str, str]:
  code = estimate.main(["estimate", *flags])
  return code, *capsys.readouterr()


def gib(text: str, name: str) -> float:
  return float(re.search(rf"{name} +([\d.]+) GiB", text)[1])


def test_a_run_that_fits(capsys):
  code, out, err = run(capsys, PAPER, V5E, NEVER)
  assert (code, err) == (0, "")
  assert "16 chips, 16 devices of 16.0 GiB and 197 TFLOP/s" in out
  assert "data=16 x fsdp=1 x context=1 x tensor=1" in out
  assert re.search(r"all +243,543,936", out)
  # 243.5M float32; two moments.
  assert gib(out, "parameters") == pytest.approx(0.907, abs=0.006)
  assert gib(out, "optimizer") == pytest.approx(1.815, abs=0.006)
  assert "fits" in out and "(compute)" in out


def test_parts_add_up(capsys):
  _, out, _ = run(capsys, PAPER, V5E, NEVER)
  table = out.split("\n\n")[1].splitlines()[1:-1]
  rows = [[float(x.replace(",", "")) for x in r.split()[1:]] for r in table]
  for column, total in zip(zip(*rows[:-1], strict=True), rows[-1], strict=True):
    assert sum(column) == pytest.approx(total, abs=0.5)


def test_what_does_not_fit_is_refused_with_a_fix(capsys):
  code, out, err = run(capsys, PAPER, V5E, NEVER, "--config.model.remat=none")
  assert code == 2 and "does not fit" in out
  asked, has, lacks = map(
    float, re.search(r"for (\S+) GiB .* has (\S+) GiB: (\S+) GiB", err).groups()
  )
  assert asked - has == pytest.approx(lacks, abs=0.011)
  assert "fix: --config.model.remat=block" in err
  fixed, *_ = run(capsys, PAPER, V5E, NEVER, "--config.model.remat=block")
  assert fixed == 0


@pytest.mark.parametrize(
  ("flags", "said"),
  [
    ((PAPER,), "--topology=NAME is missing"),
    ((V5E,), "--config=FILE is missing"),
    ((PAPER, "--topology=v5e-16"), "write v5e:16"),
    ((PAPER, "--topology=v6:4x4"), "is not one of v4, v5e"),
    ((PAPER, V5E, "--compile=maybe"), "takes one of auto, never"),
    ((PAPER, V5E, "--scaling=8,x"), "takes numbers of chips"),
    ((PAPER, V5E, "--scaling=301"), "--scaling: 301 chips"),
    ((PAPER, V5E, "--config.mesh.fsdp=3"), "this run has 16"),
    ((PAPER, "--topology=v5e:8x8"), "divisible by data*fsdp = 64"),
    ((PAPER, V5E, "--config.mesh.fdsp=3"), "did you mean 'fsdp'"),
    ((PAPER, V5E, "--slices=0"), "at least 1"),
    (
      (PAPER, V5E, "--slices=2", *TENSOR),
      "fix: --config.mesh.data=2",
    ),
    ((PAPER, "--topology=h100:8", "--compile=full"), "for TPUs only"),
    ((PAPER, "--topology=v5p:8", "--compile=quick"), "has no layout"),
  ],
)  # fmt: skip
def test_errors_name_the_flag_and_the_fix(capsys, flags, said):
  code, _, err = run(capsys, *flags)
  assert code == 2 and err.startswith("error: ") and said in err


def test_without_libtpu_it_says_what_is_missing(capsys, monkeypatch):
  find = importlib.util.find_spec
  monkeypatch.setattr(
    importlib.util,
    "find_spec",
    lambda name, *rest: None if name == "libtpu" else find(name, *rest),
  )
  code, out, _ = run(capsys, PAPER, V5E)
  assert code == 0 and "not compiled: libtpu is not installed" in out
  code, _, err = run(capsys, PAPER, V5E, "--compile=full")
  assert code == 2 and '".[tpu]"' in err


def test_the_compiler_has_the_last_word(capsys, monkeypatch):
  def refuse(*args, **options):
    raise aot.OverBudget(20 * 2**30, 15 * 2**30)

  monkeypatch.setattr(aot, "missing", lambda topology: None)
  monkeypatch.setattr(aot, "compile_step", refuse)
  code, out, err = run(capsys, PAPER, V5E)
  assert code == 2 and "fits" in out  # by arithmetic
  assert "the compiler asks for 20.00 GiB" in err
  assert "has 15.00 GiB: 5.00 GiB too much" in err
  assert "fix: --config.train.grad_accum_steps=2" in err


def test_more_chips_as_a_table(capsys):
  code, out, _ = run(capsys, PAPER, V5E, "--scaling=8,256,512")
  head, rule, *rows = out.splitlines()
  assert code == 0 and rule.startswith("|---")
  assert {line.count("|") for line in (head, rule, *rows)} == {11}
  assert [row.split()[1] for row in rows] == ["8", "256", "512"]


def test_help_and_chips_need_nothing_else(capsys):
  for flag, said in (("--help", "--topology=NAME"), ("--chips", "v6e")):
    code, out, err = run(capsys, flag)
    assert (code, err) == (0, "") and said in out


@pytest.mark.slow
def test_the_sweep(capsys):
  code, out, _ = run(capsys, PAPER, V5E, "--sweep")
  assert code == 0 and "settings fit" in out and "(as it is)" in out
