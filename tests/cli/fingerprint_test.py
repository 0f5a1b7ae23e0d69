"""Ids are never read with another vocabulary: each way in says so."""

import dataclasses
import pathlib
import runpy
import shutil

import jax
import pytest
from flax import nnx

from hsa_jax.cli import evaluate, generate, lm_eval, prepare
from hsa_jax.config import DataConfig, MeshConfig
from hsa_jax.data.tokenizer import load_tokenizer
from hsa_jax.data.train_bpe import train_bpe
from hsa_jax.models import LanguageModel
from hsa_jax.parallel import make_mesh
from hsa_jax.training.checkpoint import Checkpointer, RunInfo
from hsa_jax.training.optimizer import make_optimizer
from hsa_jax.training.state import abstract_state, init_state
from tests.training.helpers import ROOT, make_config, make_store, write_config

pytest.importorskip("tokenizers")
# Raised by ml_collections, where it reads a config file.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module")
TRAIN = runpy.run_path(str(ROOT / "train.py"))["main"]


def write_tokenizer(path: pathlib.Path, text: str) -> str:
  path.write_text(train_bpe([text], vocab_size=260))
  return f"hf:{path}"


def write_checkpoint(workdir, cfg) -> None:
  """The workdir of a training run without a step."""
  tx = make_optimizer(cfg.optimizer, num_steps=cfg.num_steps)
  mesh = make_mesh(MeshConfig())

  def build(rngs: nnx.Rngs) -> LanguageModel:
    return LanguageModel(cfg.model, rngs=rngs)

  abstract = abstract_state(build, tx, mesh=mesh)
  with jax.set_mesh(mesh):
    state = init_state(build, tx, seed=0, abstract=abstract)
  tokenizer = load_tokenizer(cfg.data.tokenizer)
  saver = Checkpointer(
    workdir, RunInfo(cfg, tokenizer.spec, tokenizer.fingerprint)
  )
  saver.save(1, state)
  saver.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  """Folder with tokenizer t.json, store, cfg.py and run, that agree.

  They name one another by relative paths: a copy of the folder stands alone.
  """
  folder = tmp_path_factory.mktemp("made")
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(folder)
    spec = write_tokenizer(pathlib.Path("t.json"), "the union " * 20)
    make_store("store", load_tokenizer(spec))
    data = DataConfig(
      corpus="files",
      store="store",
      tokenizer=spec,
      stages=make_config().data.stages[:1],
    )
    cfg = dataclasses.replace(make_config(), data=data)
    write_config("cfg.py", cfg)
    write_checkpoint("run", cfg)
  return folder


@pytest.fixture
def run(made, tmp_path, monkeypatch):
  """A copy to spoil, as the working directory."""
  shutil.copytree(made, tmp_path / "copy")
  monkeypatch.chdir(tmp_path / "copy")
  return pathlib.Path()


def swap(run: pathlib.Path) -> str:
  """Another vocabulary under the same name."""
  return write_tokenizer(run / "t.json", "of the people " * 20)


def remake(run: pathlib.Path, spec: str) -> None:
  for file in (run / "store").iterdir():
    file.unlink()
  make_store(run / "store", load_tokenizer(spec))


def train_(run):
  return TRAIN(["train.py", f"--config={run}/cfg.py", f"--workdir={run}/run"])


def evaluate_(run):
  flags = ["--lengths=192", "--samples=1", "--haystack=noise"]
  return evaluate.main([f"--checkpoint={run}/run", "--segment=64", *flags])


def generate_(run):
  return generate.main([f"--checkpoint={run}/run", "--prompt=a"])


def lm_eval_(run):
  flags = ["--tasks=a", f"--out={run}/out", "--segment=64"]
  return lm_eval.main([f"--checkpoint={run}/run", *flags])


def prepare_(run):
  return prepare.main(
    [
      "prepare",
      "--corpus=files",
      f"--files={run}/*.py",
      "--tokenizer=hf:t.json",
      f"--out={run}/store",
    ]
  )


def refused(capsys, code: int) -> str:
  captured = capsys.readouterr()
  assert code == 2, captured
  assert captured.err.count("error: ") == 1
  assert "Traceback" not in captured.err
  return captured.err


@pytest.fixture(autouse=True)
def no_compilation(request, monkeypatch):
  if "run" in request.fixturenames:
    request.getfixturevalue("run")

  def fail(*args, **kwargs):
    raise AssertionError("loaded before the input was checked")

  monkeypatch.setattr(generate, "load_model", fail)
  monkeypatch.setattr(evaluate, "load_model", fail)
  monkeypatch.setattr(lm_eval, "load_model", fail)


@pytest.mark.parametrize("command", [evaluate_, generate_, lm_eval_])
def test_the_file_changed_since_training(run, capsys, command):
  before = load_tokenizer("hf:t.json").fingerprint[:12]
  after = load_tokenizer(swap(run)).fingerprint[:12]
  message = refused(capsys, command(run))
  assert "trained with tokenizer 'hf:t.json'" in message
  assert before in message and after in message
  assert "restore the original file" in message


@pytest.mark.parametrize("command", [train_, evaluate_, generate_, lm_eval_])
def test_the_file_is_gone(run, capsys, command):
  (run / "t.json").unlink()
  assert "t.json': no such file" in refused(capsys, command(run))


@pytest.mark.parametrize("command", [train_, prepare_])
def test_the_file_changed_since_the_store_was_made(run, capsys, command):
  swap(run)
  message = refused(capsys, command(run))
  assert "store: made by tokenizer 'hf:" in message
  assert "with the file of that time, or data.store to another" in message


def test_the_store_was_made_anew_with_another(run, capsys):
  remake(run, "byte")
  message = refused(capsys, evaluate_(run))
  assert "store: made by tokenizer 'byte'" in message
  assert "set data.tokenizer = 'byte', or data.store" in message


def test_a_run_does_not_go_on_with_another(run, capsys):
  remake(run, swap(run))
  message = refused(capsys, train_(run))
  assert "run/checkpoints/1: trained with tokenizer 'hf:" in message
  assert "restore the original file, or give another --workdir" in message
