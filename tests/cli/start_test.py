"""Commands in the environment of a job: joined, or refused with one message."""

import runpy

import pytest

from hsa_jax.cli import evaluate
from tests.training.helpers import ROOT, make_config, make_store, write_config

# Raised by ml_collections, where it reads a config file.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module")

MAIN = runpy.run_path(str(ROOT / "train.py"))["main"]


def test_a_task_without_coordinator_does_not_train(
  capsys, monkeypatch, tmp_path
):
  make_store(tmp_path / "store")
  cfg = make_config(str(tmp_path / "store"))
  path = write_config(tmp_path / "tiny.py", cfg)
  monkeypatch.setenv("SLURM_NTASKS", "4")
  workdir = tmp_path / "run"
  code = MAIN(["train.py", f"--config={path}", f"--workdir={workdir}"])
  text = capsys.readouterr().err
  assert code == 2 and text.startswith("error: the job cannot start")
  assert "each would train alone" in text and not workdir.exists()


def test_an_evaluation_is_one_process(capsys, monkeypatch, tmp_path):
  monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "h:1")
  monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
  monkeypatch.setenv("JAX_PROCESS_ID", "0")
  code = evaluate.main([f"--checkpoint={tmp_path}", f"--workdir={tmp_path}/e"])
  text = capsys.readouterr().err
  assert code == 2 and "eval.py runs in one process" in text
