"""The command learns from training text alone, and says what it made."""

import json
import re

import pytest

from hsa_jax.cli import tokenizer
from hsa_jax.data.tokenizer import load_tokenizer

pytest.importorskip("tokenizers")


@pytest.fixture
def texts(tmp_path):
  """Four works; those held out have a word of their own."""
  words = {"a": "union", "b": "people", "valid": "zebra", "test": "quagga"}
  for name, word in words.items():
    text = f"the {word} is {word} of the {word} {name}. " * 30
    (tmp_path / f"{name}.txt").write_text(text)
  return tmp_path


@pytest.fixture
def ask(texts, capsys):
  """Runs the command; code, stdout and stderr."""
  corpus = [
    f"--files={texts}/?.txt",
    f"--valid-files={texts}/valid.txt",
    f"--test-files={texts}/test.txt",
  ]

  def call(*flags):
    code = tokenizer.main([f.format(d=texts) for f in [*flags, *corpus]])
    return code, *capsys.readouterr()

  return call


TRAIN = ("train", "--vocab=300", "--out={d}/sub/t.json")


def test_train_then_inspect(ask, texts):
  code, out, err = ask(*TRAIN)
  assert code == 0
  made = load_tokenizer(f"hf:{texts}/sub/t.json")
  for fact in (
    f"hf:{texts}/sub/t.json",
    str(made.vocab_size),
    made.fingerprint,
  ):
    assert fact in out
  assert "of train text" in err and "learned in" in err
  assert ask("inspect", "--tokenizer=hf:{d}/sub/t.json")[1] == out


def test_held_out_works_are_not_read(ask, texts):
  ask(*TRAIN)
  vocab = json.loads((texts / "sub/t.json").read_text())["model"]["vocab"]
  assert {"union", "people"} <= {word.lstrip("Ġ") for word in vocab}
  assert not {"zebra", "quagga"} & {word.lstrip("Ġ") for word in vocab}


def test_bytes_per_token_are_those_of_held_out_text(ask, texts):
  out = ask(*TRAIN)[1]
  made = load_tokenizer(f"hf:{texts}/sub/t.json")
  text = (texts / "test.txt").read_text()
  expected = len(text.encode()) / len(made.encode(text))
  assert f"{expected:.4f} bytes per token" in out
  assert re.search(r"round trip +all of it", out)


def test_bytes_are_a_tokenizer_too(ask):
  code, out, _ = ask("inspect", "--tokenizer=byte")
  assert code == 0 and "1.0000 bytes per token" in out


def test_an_existing_file_is_kept_or_replaced_on_demand(ask, texts):
  ask(*TRAIN)
  before = (texts / "sub/t.json").read_bytes()
  assert "the same content: kept" in ask(*TRAIN)[2]
  code, out, err = ask("train", "--vocab=265", "--out={d}/sub/t.json")
  assert (code, out) == (2, "")
  assert "holds something else" in err and "--replace" in err
  assert (texts / "sub/t.json").read_bytes() == before
  more = ("train", "--vocab=265", "--out={d}/sub/t.json", "--replace")
  assert ask(*more)[0] == 0
  assert (texts / "sub/t.json").read_bytes() != before
  assert [p.name for p in (texts / "sub").iterdir()] == ["t.json"]


def test_fewer_ids_than_asked_for_are_named(ask):
  err = ask("train", "--vocab=9000", "--out={d}/t.json")[2]
  assert re.search(r"pairs for \d+ ids only, fewer than --vocab=9000", err)


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (["train", "--vocab=300"], "--out=: name the file"),
    (["train", "--vocab=300", "--out={d}/t.bin"], "ending in .json"),
    (["train", "--vocab=9", "--out={d}/t.json"], "--vocab=9: must be between"),
    (["train", "--vocab=x", "--out={d}/t.json"], "invalid int value: 'x'"),
    (["train", "--out={d}/t.json"], "--vocab"),
    (["train", "--vocab=300", "--out={d}/a.txt/t.json"], "a.txt/t.json: "),
    (["inspect", "--tokenizer=hf:{d}/no.json"], "no.json': no such file"),
    (["inspect", "--tokenizer=bpe"], "must be 'byte' or 'hf:"),
    (["inspect"], "--tokenizer"),
    (["trian"], "trian"),
  ],
)
def test_bad_input_is_one_message(ask, flags, message):
  code, out, err = ask(*flags)
  assert (code, out) == (2, "")
  assert "error: " in err and message in err.replace(".json/t.json", "")


def test_no_corpus(capsys, tmp_path):
  flags = ["train", "--vocab=300", f"--out={tmp_path}/t.json"]
  assert tokenizer.main(flags) == 2
  assert "give --corpus=NAME, or --files" in capsys.readouterr().err
  assert tokenizer.main([*flags, "--corpus=soto"]) == 2
  assert "must be one of sotu, files" in capsys.readouterr().err
