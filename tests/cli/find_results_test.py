"""Stored results stand beside a run only while they are true."""

import dataclasses

import pytest

from hsa_jax.cli import find_results
from hsa_jax.config import Config, config_hash
from hsa_jax.evaluation.results import ResultStore, RunInfo

CONFIG = """
from hsa_jax import config
def get_config():
  return config.to_config_dict(config.Config())
"""
INFO = RunInfo(
  label="control",
  checkpoint="runs/control",
  step=10,
  config_hash=config_hash(Config()),
  tokenizer="t" * 64,
  store="s" * 64,
  seed=0,
  train_length=256,
  num_parameters=1_000,
  receptive_field=94,
)


def point(length: int, num_samples: int = 20) -> dict:
  return {
    "suite": "hsa_ruler",
    "protocol": "token",
    "task": "s_niah",
    "haystack": "text",
    "needle": "digits",
    "length": length,
    "num_samples": num_samples,
    "metric": "exact_match",
    "score": 0.5,
    "ci_low": 0.3,
    "ci_high": 0.7,
  }


def make_results(path, points, **changes):
  store = ResultStore(path, INFO._replace(**changes))
  for row in points:
    store.add_result(row)
  return str(path)


@pytest.fixture
def ask(tmp_path, capsys):
  """Runs the command beside a run measured at 256 and 1024."""
  config = tmp_path / "control.py"
  config.write_text(CONFIG)
  beside = make_results(
    tmp_path / "run", [point(256), point(1024)], config_hash="run's own"
  )

  def run(*folders: str) -> tuple[int, str, str]:
    code = find_results.main(
      [f"--config={config}", f"--beside={beside}", *folders]
    )
    return code, *capsys.readouterr()

  return run


def test_takes_the_first_that_fits(ask, tmp_path):
  good = make_results(tmp_path / "a", [point(256), point(1024), point(4096)])
  also = make_results(tmp_path / "b", [point(256), point(1024)])
  code, out, _ = ask(str(tmp_path / "absent"), good, also)
  assert (code, out.strip()) == (0, good)


@pytest.mark.parametrize(
  "changes",
  [{"config_hash": "old"}, {"store": "x"}, {"tokenizer": "x"}, {"seed": 1}],
  ids=lambda changes: next(iter(changes)),
)
def test_refuses_results_of_something_else(ask, tmp_path, changes):
  other = make_results(tmp_path / "a", [point(256), point(1024)], **changes)
  code, out, err = ask(other)
  assert (code, out) == (1, "")
  assert "a: " in err


def test_refuses_results_with_missing_points(ask, tmp_path):
  fewer = make_results(tmp_path / "a", [point(256), point(1024, 10)])
  code, _, err = ask(fewer)
  assert code == 1
  assert "1 points not measured" in err


def test_missing_config_file_is_one_message(ask, tmp_path, capsys):
  folder = make_results(tmp_path / "c", [point(256)])
  flags = ["--config=absent.py", f"--beside={folder}", folder]
  assert find_results.main(flags) == 2
  assert "absent.py" in capsys.readouterr().err


def test_hash_sees_every_field():
  base = Config()
  other = dataclasses.replace(
    base, train=dataclasses.replace(base.train, seed=1)
  )
  assert config_hash(base) != config_hash(other)
