"""Bad input: one message, exit code 2, before anything is made."""

import pytest

from hsa_jax.cli import evaluate

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
    ([CHECKPOINT, "--prefill=hallo"], "did you mean 'halo'"),
    ([CHECKPOINT, "--kv-place=ram"], "not one of device, pinned_host"),
    ([CHECKPOINT, "--kv-place=pinned_host"], "add --memory=sharded"),
    ([CHECKPOINT, "--needle=words"], "not one of digits, ids"),
    ([CHECKPOINT, "--segment=0"], "--segment=0: must be at least 1"),
    ([CHECKPOINT, "--batch=-1"], "--batch=-1: must be at least 1"),
    ([CHECKPOINT, "--batch=two"], "invalid int value: 'two'"),
    ([CHECKPOINT, "--seed=-1"], "--seed=-1: must not be negative"),
    ([CHECKPOINT, "--lenghts=1K"], "--lenghts=1K"),
    (["--report", "/no/such/run"], "--out=DIR is missing"),
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
