"""Sentences and backgrounds against cases worked out by hand."""

import numpy as np
import pytest

from hsa_jax.data.babi.background import (
  folder_background,
  make_background,
  store_background,
)
from hsa_jax.data.babi.sentences import split_sentences
from hsa_jax.data.corpora import Corpus, Document
from hsa_jax.data.errors import DataError
from hsa_jax.data.store import build_store
from hsa_jax.data.tokenizer import load_tokenizer

TOKENIZER = load_tokenizer("byte")


@pytest.mark.parametrize(
  "text, expected",
  [
    ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
    # Without a model, no abbreviation is known.
    ("Mr. Darcy went. He left.", ["Mr.", "Darcy went.", "He left."]),
    ("By J. S. Bach. The end.", ["By J. S. Bach.", "The end."]),
    ("See no. 5. of it. Then no. 7. Go.", None),
    ("He waited... And she came.", ["He waited... And she came."]),
    ("“Stop!” he said. (Yes.) No.", ["“Stop!”", "he said.", "(Yes.)", "No."]),
    ("It cost 3.50 then.\nA\nline. ", ["It cost 3.50 then.", "A\nline."]),
    ("", []),
  ],
)
def test_sentences(text, expected):
  if expected is None:
    expected = ["See no.", "5. of it.", "Then no.", "7.", "Go."]
  assert list(split_sentences(text)) == expected


def test_nothing_but_white_space_is_lost():
  rng = np.random.default_rng(0)
  marks = np.array(list('ab A1.?!") \n'))
  for _ in range(200):
    text = "".join(rng.choice(marks, 60))
    joined = "".join("".join(split_sentences(text)).split())
    assert joined == "".join(text.split())


TEXT = (
  "First one here. The second sentence. Tiny. The third\nsentence. Last one."
)


def test_a_background_is_whole_sentences_of_ten_tokens():
  background = make_background([TEXT, TEXT], TOKENIZER, where="here")
  assert TOKENIZER.decode(background.tokens) == (
    " The second sentence. The third\nsentence." * 2
  )
  assert background.starts.tolist() == [0, 21, 41, 62]
  assert background.tokens.dtype == np.uint16
  assert TOKENIZER.decode(background.sentence(5)) == " The third\nsentence."


def test_the_ring_unrolled():
  background = make_background([TEXT, TEXT], TOKENIZER, where="here")
  size = len(background.tokens)
  assert [background.offset(k) for k in (0, 3, 4, 9)] == [
    0,
    62,
    size,
    2 * size + 21,
  ]
  for offset in range(3 * size):
    at = background.sentence_at(offset)
    assert background.offset(at) >= offset
    assert at == 0 or background.offset(at - 1) < offset


def test_of_a_store_only_the_split_asked_for(tmp_path):
  docs = [
    Document(split, split, 99, lambda s=split: f"Aa. About {s} text. Bb. Cc.")
    for split in ("train", "valid", "test")
  ]
  corpus = Corpus("files", "three", tuple(docs))
  store = build_store(corpus, TOKENIZER, tmp_path / "store")
  for split in ("train", "test"):
    background = store_background(store, TOKENIZER, split)
    assert TOKENIZER.decode(background.tokens) == f" About {split} text."
  assert store_background(store, TOKENIZER, "test") is store_background(
    store, TOKENIZER, "test"
  )


def test_a_folder_of_books(tmp_path):
  (tmp_path / "b.txt").write_text("Aa. The second book. Cc.")
  (tmp_path / "a.txt").write_text("Aa. The first book. Cc.")
  background = folder_background(str(tmp_path), TOKENIZER)
  text = TOKENIZER.decode(background.tokens)
  assert text == " The first book. The second book."


def test_messages(tmp_path):
  with pytest.raises(DataError, match="here: no sentence of 10 tokens"):
    make_background(["no full stop at all"], TOKENIZER, where="here")
  with pytest.raises(DataError, match=r"no \*.txt file there"):
    folder_background(str(tmp_path), TOKENIZER)
  (tmp_path / "a.txt").write_bytes(b"abc\xff")
  with pytest.raises(DataError, match="a.txt: not UTF-8 at byte 3"):
    folder_background(str(tmp_path), TOKENIZER)
