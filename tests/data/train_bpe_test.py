"""A learned vocabulary loses nothing and is the same every time."""

import json

import pytest

from hsa_jax.data.errors import TokenizerError
from hsa_jax.data.tokenizer import load_tokenizer
from hsa_jax.data.train_bpe import train_bpe

pytest.importorskip("tokenizers")
TEXTS = ["the state of the union is strong. " * 9, "of the people, 1863\n" * 9]


@pytest.fixture
def tokenizer(tmp_path):
  (tmp_path / "t.json").write_text(train_bpe(TEXTS, vocab_size=270))
  return load_tokenizer(f"hf:{tmp_path / 't.json'}")


def test_the_same_text_gives_the_same_file():
  one = train_bpe(iter(TEXTS), vocab_size=300)
  assert train_bpe(TEXTS, vocab_size=300) == one
  assert train_bpe(TEXTS[:1], vocab_size=300) != one


def test_any_text_survives(tokenizer):
  for text in (
    "naïve — 日本 🙂\x00\r\n",
    "  two  spaces ",
    "",
    "\t1863",
    "Ω" * 99,
  ):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_ids_are_all_that_was_asked_for(tokenizer):
  assert tokenizer.vocab_size == 270
  assert (tokenizer.eos_id, tokenizer.pad_id) == (0, 1)
  assert len(tokenizer.encode("the state of the union")) < 16


def test_every_digit_is_one_token(tokenizer):
  for number in ("1863", "18631863", "7"):
    assert len(tokenizer.encode(number)) == len(number)
  # Wherever it stands, so that an answer is found where it was hidden.
  alone, inside = tokenizer.encode("1863"), tokenizer.encode("is 1863.")
  assert alone.tolist() in [
    inside[i : i + 4].tolist() for i in range(len(inside) - 3)
  ]


def test_a_merge_never_crosses_two_texts():
  vocab = json.loads(train_bpe(["ab"] * 50, vocab_size=300))["model"]["vocab"]
  assert "ab" in vocab and "ba" not in vocab and "abab" not in vocab


def test_a_small_text_gives_a_small_vocabulary():
  vocab = json.loads(train_bpe(["ab"] * 50, vocab_size=5000))["model"]["vocab"]
  assert len(vocab) == 256 + 2 + 1


@pytest.mark.parametrize(("size", "nearest"), [(100, 258), (10**9, 1 << 20)])
def test_impossible_sizes(size, nearest):
  with pytest.raises(
    TokenizerError, match=f"--vocab={size}.*nearest: {nearest}"
  ):
    train_bpe(TEXTS, vocab_size=size)


def test_without_the_package(monkeypatch):
  monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
  with pytest.raises(TokenizerError, match="pip install tokenizers"):
    train_bpe(TEXTS, vocab_size=300)
