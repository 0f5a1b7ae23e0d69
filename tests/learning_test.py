"""T10: a tiny model learns to find the needle and keeps it 32 times further.

Trained at up to 512 tokens with W = 64, S = 16, K = 2, from the command line,
on text that the test brings along; the same layers without memory stay at
chance. About ten minutes on two cores.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONFIG = """
import dataclasses
from configs import quickstart
from hsa_jax import config as c

def get_config(arg=None):
  # With two slots the plateau lasts until step 240 or so.
  short = dataclasses.replace(quickstart.STAGES[0], num_steps=500)
  longer = dataclasses.replace(
    short, name="longer", num_steps=100, seq_len=512, batch_size=8
  )
  cfg = quickstart.build((short, longer))
  hsa = dataclasses.replace(cfg.model.hsa, top_k=2, num_groups={groups})
  model = dataclasses.replace(cfg.model, window_size=64, hsa=hsa)
  data = dataclasses.replace(cfg.data, corpus="files", store="{store}")
  return c.to_config_dict(dataclasses.replace(cfg, model=model, data=data))
"""


def python(*arguments: str) -> None:
  """Runs a command of the project; its output is shown if it fails."""
  environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
  done = subprocess.run(
    [sys.executable, *arguments],
    cwd=ROOT,
    env=environment,
    text=True,
    capture_output=True,
    check=False,
  )
  assert done.returncode == 0, done.stdout + done.stderr


def exact_match(folder: Path, store: Path, groups: int) -> float:
  """Trains, then asks for the needle among 16K tokens of noise."""
  config = folder / f"groups{groups}.py"
  config.write_text(CONFIG.format(groups=groups, store=store))
  run = folder / f"run{groups}"
  python("train.py", f"--config={config}", f"--workdir={run}")
  python(
    "eval.py",
    f"--checkpoint={run}",
    "--haystack=noise",
    "--lengths=16K",
    "--samples=20",
    f"--workdir={run}/eval",
  )
  lines = (run / "eval" / "results.jsonl").read_text().splitlines()
  (result,) = [json.loads(line) for line in lines]
  return result["score"]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
  folder = tmp_path_factory.mktemp("text")
  for i in range(40):
    sentence = f"This is sentence {i} of a book that nobody will ever read. "
    (folder / f"{i}.txt").write_text(sentence * 80)
  python(
    "-m",
    "hsa_jax.cli.prepare",
    "--corpus=files",
    f"--files={folder}/*.txt",
    "--tokenizer=byte",
    f"--out={folder}/store",
  )
  return folder / "store"


@pytest.mark.slow
def test_memory_extrapolates_and_a_window_does_not(tmp_path, store):
  assert exact_match(tmp_path, store, groups=1) >= 0.9
  assert exact_match(tmp_path, store, groups=0) <= 0.1
