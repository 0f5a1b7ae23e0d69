import pickle

import numpy as np
import pytest

from hsa_jax.data.errors import TokenizerError
from hsa_jax.data.tokenizer import load_tokenizer


def test_bytes_round_trip_any_text():
  tokenizer = load_tokenizer("byte")
  text = "naïve — 日本\x00\n\t🙂 end"
  ids = tokenizer.encode(text)
  assert ids.dtype == np.int32
  assert len(ids) == len(text.encode())
  assert tokenizer.decode(ids) == text


def test_special_ids_are_no_text():
  tokenizer = load_tokenizer("byte")
  special = [tokenizer.eos_id, tokenizer.pad_id]
  assert sorted(special) == [256, 257]
  assert tokenizer.vocab_size == 258
  assert tokenizer.decode([104, *special, 105]) == "hi"


def test_broken_utf8_is_shown_not_raised():
  assert load_tokenizer("byte").decode([0xFF, 0x41]) == "�A"


def test_fingerprint_is_stable():
  # A change here makes every store and checkpoint in the world unreadable.
  fingerprint = load_tokenizer("byte").fingerprint
  assert fingerprint == load_tokenizer("byte").fingerprint
  assert fingerprint.startswith("fdb656a2054ed9cd")


@pytest.mark.parametrize("spec", ["bytes", "", "hf"])
def test_unknown_spec(spec):
  with pytest.raises(TokenizerError, match="must be 'byte' or 'hf:"):
    load_tokenizer(spec)


def test_missing_package_or_file_is_one_clear_error(tmp_path):
  with pytest.raises(TokenizerError, match="no such file|pip install"):
    load_tokenizer(f"hf:{tmp_path}/none.json")


def _train(path, special):
  tokenizers = pytest.importorskip("tokenizers")
  inner = tokenizers.Tokenizer(tokenizers.models.BPE())
  inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
    add_prefix_space=False
  )
  inner.decoder = tokenizers.decoders.ByteLevel()
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=400,
    special_tokens=special,
    initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  inner.train_from_iterator(["the special magic numbers are here"] * 9, trainer)
  inner.save(str(path))
  return f"hf:{path}"


def test_json_tokenizer(tmp_path):
  spec = _train(tmp_path / "t.json", ["<|endoftext|>", "<pad>"])
  tokenizer = load_tokenizer(spec)
  ids = tokenizer.encode("the magic — numbers")
  assert ids.dtype == np.int32
  assert tokenizer.decode(ids) == "the magic — numbers"
  assert tokenizer.eos_id != tokenizer.pad_id
  assert ids.max() < tokenizer.vocab_size
  again = pickle.loads(pickle.dumps(tokenizer))
  assert again.fingerprint == tokenizer.fingerprint
  assert again.encode("magic").tolist() == tokenizer.encode("magic").tolist()


def test_json_tokenizer_without_eos(tmp_path):
  with pytest.raises(TokenizerError, match="no end-of-text token"):
    load_tokenizer(_train(tmp_path / "t.json", ["<odd>"]))


def test_not_a_tokenizer_file(tmp_path):
  pytest.importorskip("tokenizers")
  (tmp_path / "t.json").write_text("{}")
  with pytest.raises(TokenizerError, match="not a tokenizer.json"):
    load_tokenizer(f"hf:{tmp_path}/t.json")


def test_text_never_becomes_a_special_token(tmp_path):
  spec = _train(tmp_path / "t.json", ["<|endoftext|>", "<pad>"])
  tokenizer = load_tokenizer(spec)
  text = "the <|endoftext|> magic <pad>"
  for one in (tokenizer, pickle.loads(pickle.dumps(tokenizer))):
    ids = one.encode(text)
    assert not {one.eos_id, one.pad_id} & set(ids.tolist())
    assert one.decode(ids) == text


def test_a_file_that_truncates_and_pads_does_not(tmp_path):
  tokenizers = pytest.importorskip("tokenizers")
  path = tmp_path / "t.json"
  spec = _train(path, ["<|endoftext|>", "<pad>"])
  plain = load_tokenizer(spec).encode("the special magic numbers")
  inner = tokenizers.Tokenizer.from_file(str(path))
  inner.enable_truncation(2)
  inner.enable_padding(length=40)
  inner.save(str(path))
  again = load_tokenizer(spec)
  assert again.encode("the special magic numbers").tolist() == plain.tolist()
