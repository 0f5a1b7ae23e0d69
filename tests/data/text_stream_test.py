"""Text appears as it becomes certain, and none is lost."""

import pytest

from hsa_jax.data.text_stream import TextStream
from hsa_jax.data.tokenizer import load_tokenizer


class Words:
  """Writes a space between two ids, as many vocabularies do."""

  def decode(self, ids):
    return " ".join(f"w{i}" for i in ids)


def parts(tokenizer, ids):
  stream = TextStream(tokenizer)
  return [*(stream.add(i) for i in ids), stream.finish()]


@pytest.mark.parametrize("text", ["plain", "é€🙂 a", "🙂🙂"])
def test_bytes_become_whole_characters(text):
  tokenizer = load_tokenizer("byte")
  got = parts(tokenizer, tokenizer.encode(text))
  assert "".join(got) == text
  assert [part for part in got if part] == list(text)


def test_broken_bytes_are_shown_as_such():
  tokenizer = load_tokenizer("byte")
  assert "".join(parts(tokenizer, [0x80, 97, 0xE2, 0x82])) == "\ufffda\ufffd"
  assert parts(tokenizer, [97, 256, 98]) == ["a", "", "b", ""]


def test_spaces_between_ids_are_kept():
  assert parts(Words(), [1, 2, 3]) == ["w1", " w2", " w3", ""]
