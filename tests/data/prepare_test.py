import pytest

from hsa_jax.cli.prepare import main
from hsa_jax.data.store import TokenStore

# Raised by the loader of configuration files inside ml_collections.
pytestmark = pytest.mark.filterwarnings(
  "ignore:the load_module:DeprecationWarning"
)


@pytest.fixture
def texts(tmp_path):
  folder = tmp_path / "texts"
  folder.mkdir()
  for i in range(8):
    (folder / f"{i}.txt").write_text(f"text number {i}. " * (30 + i))
  return str(folder / "*.txt")


def _run(*flags):
  return main(["prepare", *flags])


def _make(texts, out, *flags):
  return _run("--corpus=files", f"--files={texts}", f"--out={out}", *flags)


def test_makes_a_store_and_prints_its_table(texts, tmp_path, capsys):
  assert _make(texts, tmp_path / "s") == 0
  printed = capsys.readouterr()
  store = TokenStore.open(tmp_path / "s")
  for name in ("train", "valid", "test"):
    (line,) = [s for s in printed.out.splitlines() if s.startswith(name)]
    assert str(store.num_tokens(name)) in line.split()
  assert "tokenized" in printed.err


def test_second_run_keeps_the_store(texts, tmp_path, capsys):
  _make(texts, tmp_path / "s")
  before = (tmp_path / "s" / "index.json").stat().st_mtime_ns
  assert _make(texts, tmp_path / "s") == 0
  assert "kept" in capsys.readouterr().err
  assert (tmp_path / "s" / "index.json").stat().st_mtime_ns == before


def test_changed_text_needs_replace(texts, tmp_path, capsys):
  _make(texts, tmp_path / "s")
  first = TokenStore.open(tmp_path / "s").index["sha256"]
  (tmp_path / "texts" / "3.txt").write_text("something else")
  assert _make(texts, tmp_path / "s") == 2
  assert "other text" in capsys.readouterr().err
  assert TokenStore.open(tmp_path / "s").index["sha256"] == first
  assert _make(texts, tmp_path / "s", "--replace") == 0
  assert TokenStore.open(tmp_path / "s").index["sha256"] != first


def test_config_names_the_store(texts, tmp_path, capsys):
  _make(texts, tmp_path / "s")
  config = tmp_path / "c.py"
  config.write_text(
    "from hsa_jax.config import Config, DataConfig, to_config_dict\n"
    "def get_config():\n"
    "  data = DataConfig(corpus='sotu', store='elsewhere')\n"
    "  return to_config_dict(Config(data=data))\n"
  )
  store = f"--config.data.store={tmp_path / 's'}"
  assert _run(f"--config={config}", store) == 2
  assert "holds a token store of other text" in capsys.readouterr().err
  assert _run(f"--config={config}", "--config.data.stor=x") == 2
  assert "stor" in capsys.readouterr().err
  assert _run(f"--config={config}", "--out=x") == 2
  assert "--config.data.store=DIR" in capsys.readouterr().err


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (["--nosuch=1"], "nosuch"),
    (["--corpus=sotu"], "--out=DIR"),
    (["--corpus=sotx", "--out={d}/s"], "must be one of sotu, files"),
    (["--corpus=sotu", "--out={d}/s", "--tokenizer=bpe"], "must be 'byte'"),
    (["--corpus=files", "--out={d}/s", "--files={d}/no*"], "matches no file"),
    (["--corpus=files", "--out={d}/s", "stray"], "is not a flag"),
    (["--config={d}/none.py"], "none.py"),
  ],
)
def test_bad_input_is_one_message_and_exit_code_2(
  flags, message, tmp_path, capsys
):
  assert _run(*[f.format(d=tmp_path) for f in flags]) == 2
  error = capsys.readouterr().err
  assert message in error
  assert error.startswith("error: ")
  assert not (tmp_path / "s").exists()


def test_help(capsys):
  assert _run("--help") == 0
  assert "--tokenizer" in capsys.readouterr().out
