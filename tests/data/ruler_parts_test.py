"""The parts that haystacks are made of, against slow or hand-worked twins."""

import itertools
import uuid

import numpy as np
import pytest

from hsa_jax.data.ruler import kinds, templates, tracing
from hsa_jax.data.ruler.assets import Words
from hsa_jax.data.ruler.essay import make_essay, split_sentences
from hsa_jax.data.ruler.kinds import KindName, draw_distinct, make_kind
from hsa_jax.data.ruler.lexicon import Column, Lexicon, Rows, row_sizes
from hsa_jax.data.ruler.noise import place_lines
from hsa_jax.data.ruler.prompt import TooShort

from .ruler_cases import BYTE, ChunkTokenizer

WORDS = Words(("big", "teeny-tiny"), ("cat", "ice cream", "hat"), ("go",))


@pytest.mark.parametrize("name", list(KindName))
@pytest.mark.parametrize("tokenizer", [BYTE, ChunkTokenizer()])
def test_kinds_are_spelt_by_their_tables(name, tokenizer):
  kind = make_kind(name, WORDS, tokenizer.encode)
  codes = kind.draw(np.random.default_rng(0), 300)
  tables, places = kind.tables(), kind.places(codes)
  for row in range(300):
    parts = [t[p[row]] for t, p in zip(tables, places, strict=True)]
    assert "".join(parts) == " " + kind.text(codes[row])


def test_values_have_rulers_form():
  rng = np.random.default_rng(0)
  numbers = kinds.Numbers(BYTE.encode)
  drawn = [int(numbers.text(c)) for c in numbers.draw(rng, 5_000)]
  assert 10**6 <= min(drawn) < 10**6 + 10**4
  assert 10**7 - 10**4 < max(drawn) < 10**7
  uuids = kinds.Uuids()
  for codes in uuids.draw(rng, 50):
    read = uuid.UUID(uuids.text(codes))
    assert read.version == 4 and read.variant == uuid.RFC_4122
    assert str(read) == uuids.text(codes)
  pairs = kinds.WordPairs(WORDS)
  texts = {pairs.text(c) for c in pairs.draw(rng, 200)}
  assert len(texts) == 6 and "teeny-tiny-ice cream" in texts


@pytest.mark.parametrize("offset, want", [(0, [3, 4]), (1, [4, 3])])
def test_numbers_are_cut_as_the_tokenizer_cuts_them(offset, want):
  """By threes from the left, or so that the last has three."""

  def by_threes(text):
    body = text.lstrip(" ")
    shift = -len(body) % 3 if offset else 0
    parts = [body[max(i - shift, 0) : i + 3 - shift] for i in range(0, 9, 3)]
    parts = [" "] * (len(text) - len(body)) + [p for p in parts if p]
    return np.array([hash(p) % (1 << 30) for p in parts], np.int32)

  numbers = kinds.Numbers(by_threes)
  assert [len(table[0].strip()) for table in numbers.tables()] == want


def test_distinct_draws():
  codes = draw_distinct(kinds.WordPairs(WORDS), np.random.default_rng(0), 6)
  assert len(np.unique(codes, axis=0)) == 6


def test_rows_against_text():
  entries = ["a", "bb", "", "ccc", "x", "yyyy"]
  lexicon = Lexicon(map(BYTE.encode, entries))
  rng = np.random.default_rng(0)
  count = 12
  first, last = rng.integers(0, 4, count), rng.integers(0, 2, count)
  columns = [Column(0, first), Column(1, None), Column(4, last)]
  sizes = row_sizes(lexicon, columns, count)
  lines = [
    entries[a] + "bb" + entries[4 + b]
    for a, b in zip(first.tolist(), last.tolist(), strict=True)
  ]
  assert sizes.tolist() == [len(line) for line in lines]
  text = "".join(lines)
  for cut in (0, 1, 2):
    rows = Rows(lexicon, columns, sizes, len(text) - cut)
    for start, stop in itertools.combinations(range(rows.length + 1), 2):
      got = BYTE.decode(rows.segment(start, stop))
      assert got == text[cut:][start:stop]
    begins = [rows.start_of(i) + cut for i in range(count)]
    assert begins == [len("".join(lines[:i])) for i in range(count)]


@pytest.mark.parametrize(
  "text, want",
  [
    ("One. Two", ["One.", "Two"]),
    ("One.Two", ["One.Two"]),  # no space
    ("He said so. but", ["He said so. but"]),  # no capital
    ("Is it? Yes! 12 of them.", ["Is it?", "Yes!", "12 of them."]),
    ('"Go." She went.', ['"Go."', "She went."]),
    ("Off (it was.) Then", ["Off (it was.)", "Then"]),
    ("Ask Mr. Brown or J. Smith. Now.", ["Ask Mr. Brown or J. Smith.", "Now."]),
    ("The U.S. Army. It", ["The U.S. Army.", "It"]),
    ("A “quote.” “More” here", ["A “quote.”", "“More” here"]),
    ("Wait... What", ["Wait...", "What"]),
  ],
)
def test_sentences(text, want):
  assert split_sentences(text) == want
  assert " ".join(want) == text


def test_an_essay_is_its_text():
  text = "First  here.\nSecond one, there.\n\nThird? Fourth."
  essay = make_essay("essay", text, BYTE.encode)
  plain = " First here. Second one, there. Third? Fourth."
  assert BYTE.decode(essay.ring) == plain
  starts = [plain.index(w) - 1 for w in ("First", "Second", "Third", "Fourth")]
  assert essay.starts.tolist() == starts
  assert BYTE.decode(essay.first) == "First here." and essay.space == 1
  size = len(plain)
  for tokens in range(3 * size):
    want = sum(s + r * size < tokens for r in range(3) for s in starts)
    assert essay.count_starts(tokens) == want
  assert essay.start(6) == size + starts[2]


def test_a_join_that_changes_tokens_is_no_place_for_a_needle():
  """A vocabulary with a token for `. S` reaches over that border."""

  def encode(text):
    return BYTE.encode(text.replace(". S", "#"))

  text = "First here. Second one. Third. Fourth."
  essay = make_essay("essay", text, encode)
  begins = [BYTE.decode(essay.ring[s : s + 3]) for s in essay.starts]
  assert begins == [" Fi", " Th", " Fo"]
  # The sentence behind the bad join belongs to the first one.
  assert len(essay.first) == essay.starts[1] - 1


def test_lines_among_noise_against_a_list():
  """Whole lines of noise, the hidden ones at their places, in order."""
  ring = BYTE.encode("noise\n")
  lines = [BYTE.encode(t) for t in ("aa\n", "b\n", "cccc\n")]
  head, tail = BYTE.encode("H\n"), BYTE.encode("T")
  for length in range(31, 80):
    depths = [0.0, 0.5, 0.999]
    placed = place_lines(ring, head, lines, depths, tail, length + 7, 7)
    text = BYTE.decode(placed.body.segment(0, length))
    assert len(text) == length
    first, *rest = text[2:-1].splitlines(keepends=True)
    part = (length - 3 - 10) % 6
    rows = rest if part else [first, *rest]
    count = (length - 3 - 10) // 6
    room = count - 2
    want = ["noise\n"] * count
    for i, (line, depth) in enumerate(
      zip(("aa\n", "b\n", "cccc\n"), (0.0, 0.5, 0.999), strict=True)
    ):
      want.insert(int(depth * room) + 2 * i, line)
    assert rows == want
    assert [text[p] for p in placed.positions] == ["a", "b", "c"]
    assert placed.unique_fraction == pytest.approx(6 / (length - 13))
  with pytest.raises(TooShort) as caught:
    place_lines(ring, head, lines, [0.0, 0.5, 0.9], tail, 37, 7)
  assert caught.value.needed == 38


def test_the_example_keeps_within_500_tokens():
  """As many lines of noise as fit, and at least one between assignments."""
  chunk = ChunkTokenizer()
  for encode, fits in ((BYTE.encode, False), (chunk.encode, True)):
    task = tracing.TracingTask(encode)
    chain = tracing.Chain(12345, ("ABC",) * 5, (0.0,) * 5)
    size = [
      len(encode(tracing.write_example(chain, task._example_lines + i)))
      for i in (0, 1)
    ]
    assert task._example_lines >= 5
    assert (size[0] <= 500) == fits and size[1] > 500


def test_lists_of_names():
  assert templates.enumeration(["a"]) == "a"
  assert templates.enumeration(["a", "b"]) == "a, and b"
  assert templates.enumeration(["a", "b", "c", "d"]) == "a, b, c, and d"
  assert templates.numbered(["x", "y"]) == "1. x 2. y"
