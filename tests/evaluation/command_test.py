"""Bad input: one message, exit code 2, before anything is made."""

import pytest

from hsa_jax.cli import evaluate
from hsa_jax.evaluation.results import ResultStore
from tests.evaluation import report_cases as cases

CHECKPOINT = "--checkpoint=/no/such/run"


@pytest.mark.parametrize(
  ("argv", "message"),
  [
    ([], "--checkpoint is missing"),
    ([CHECKPOINT], "no such folder"),
    ([CHECKPOINT, "--lengths=4KB"], "--lengths: '4KB' is not a length"),
    ([CHECKPOINT, "--samples=0"], "--samples: '0'"),
    ([CHECKPOINT, "--suites=hsa_rular"], "did you mean 'hsa_ruler'?"),
    ([CHECKPOINT, "--tasks=niah"], "did you mean 's_niah'?"),
    (
      [CHECKPOINT, "--suites=ppl", "--tasks=s_niah"],
      "'s_niah' is not one of by_position, by_length",
    ),
    ([CHECKPOINT, "--haystack=essay"], "not one of text, noise"),
    ([CHECKPOINT, "--memory=dsk"], "did you mean 'disk'"),
    ([CHECKPOINT, "--kv-dtype=int4"], "did you mean 'int8'"),
    ([CHECKPOINT, "--memory=host,disk"], "takes one of auto, device, sharded"),
    ([CHECKPOINT, "--diagnostics=ful"], "did you mean 'full'"),
    ([CHECKPOINT, "--prefill=hallo"], "did you mean 'halo'"),
    ([CHECKPOINT, "--kv-place=ram"], "not one of device, pinned_host"),
    ([CHECKPOINT, "--kv-place=pinned_host"], "add --memory=sharded"),
    ([CHECKPOINT, "--needle=words"], "not one of digits, ids"),
    ([CHECKPOINT, "--segment=0"], "--segment=0: must be at least 1"),
    ([CHECKPOINT, "--batch=-1"], "--batch=-1: must be at least 1"),
    ([CHECKPOINT, "--batch=two"], "invalid int value: 'two'"),
    ([CHECKPOINT, "--seed=-1"], "--seed=-1: must not be negative"),
    ([CHECKPOINT, "--lenghts=1K"], "--lenghts=1K"),
    (["--report", "/no/such/run", "/no/other"], "--out=DIR is missing"),
    (["--report", "/no/such/run"], "/no/such/run: no evaluation results here"),
    (
      ["--compare", "/no/such/run", "/b"],
      "/no/such/run: no evaluation results",
    ),
    (["--compare", "/no/such/run"], "--compare: expected 2 arguments"),
    (["--compare", "/a", "/b", "--report", "/a"], "give one of them at a time"),
  ],
)
def test_bad_flags(argv, message, capsys):
  assert evaluate.main(argv) == 2
  error = capsys.readouterr().err
  assert message in error
  assert error.startswith("error: ")
  assert len(error.strip().splitlines()) <= 2


def test_all_bad_flags_are_told_at_once(capsys):
  argv = [CHECKPOINT, "--lengths=x", "--samples=y", "--haystack=z"]
  assert evaluate.main(argv) == 2
  error = capsys.readouterr().err
  for flag in ("--lengths", "--samples", "--haystack"):
    assert flag in error


def test_report_of_one_run_goes_into_its_folder(tmp_path, capsys):
  store = ResultStore(tmp_path, cases.INFO)
  key = cases.key_fields("hsa_ruler", "s_niah", 512, 4)
  cases.add_job(store, key, [1, 1, 1, 0])
  assert evaluate.main(["--report", str(tmp_path)]) == 0
  out = capsys.readouterr().out
  assert "3/4 0.75" in out and f"report: {tmp_path / 'report.md'}" in out
  assert (tmp_path / "report.html").exists()


def test_compare_prints_and_writes(tmp_path, capsys):
  key = cases.key_fields("hsa_ruler", "s_niah", 512, 4)
  for name, values in (("a", [1, 1, 1, 0]), ("b", [0, 0, 1, 0])):
    store = ResultStore(tmp_path / name, cases.INFO._replace(label=name))
    cases.add_job(store, key, values)
  argv = ["--compare", str(tmp_path / "a"), str(tmp_path / "b")]
  assert evaluate.main(argv) == 0
  assert "+0.500" in capsys.readouterr().out
  out = tmp_path / "out"
  assert evaluate.main([*argv, f"--out={out}"]) == 0
  assert f"report: {out / 'compare.md'}" in capsys.readouterr().out
  assert (out / "compare.html").exists()
