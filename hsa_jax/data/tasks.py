"""Needles in a haystack at the token level (S-NIAH and its training variants).

A sample is a recipe: where the haystack starts, where each needle goes, what is
asked. Any stretch of it can be rendered alone, so a sample of 32M tokens costs
as much memory as one segment. The form is the one of RAMba and HiLS
(arXiv 2504.16795 and their public code): a stretch of tokens, needles inserted
at any token, the question and its answer at the very end, then eos.
"""

import string
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from hsa_jax.config.fields import Haystack, Needle, SourceConfig
from hsa_jax.data.rng import EVAL, make_rng
from hsa_jax.data.tokenizer import Tokenizer

KEY = "long-context"  # of the first needle
NOISE = (  # RULER's filler
  "The grass is green. The sky is blue. The sun is yellow. Here we go."
  " There and back again.\n"
)
_NEEDLE = (" |One of the special magic numbers for", " is:", "|")
_QUESTION = (
  " What is the special magic number for",
  " mentioned in the provided text? Answer: ",
)
_KEY_LETTERS = 5
_NUM_DIGITS = 8
_NUM_IDS, _FIRST_ID = 7, 100


class Haystacks(NamedTuple):
  """Token sequences that haystacks are cut from, each read as a ring.

  Attributes:
    text: tokens of one split of the store.
    noise: one period of RULER's repeated sentences.
  """

  text: np.ndarray
  noise: np.ndarray

  def of(self, kind: Haystack) -> np.ndarray:
    return self.text if kind is Haystack.TEXT else self.noise


class PlacedNeedle(NamedTuple):
  """A needle and its place.

  Attributes:
    position: index in the sample of its first token.
    key: what the question names.
    tokens: int32, the whole needle.
    value: int32, the part that is the answer.
    value_position: index in the sample of the first token of `value`.
  """

  position: int
  key: str
  tokens: np.ndarray
  value: np.ndarray
  value_position: int


class PlacedQuestion(NamedTuple):
  """A question at the end.

  Attributes:
    position: index in the sample of its first token.
    needle: index into `NiahRecipe.needles` of the needle it asks for.
    answer_position: index of the first answer token; the answer has as many
      tokens as the needle's value.
  """

  position: int
  needle: int
  answer_position: int


class NiahRecipe(NamedTuple):
  """Everything that determines a sample, apart from the haystack's text.

  Attributes:
    haystack: which ring the filler comes from.
    start: index in that ring of the first filler token.
    length: tokens of the sample, eos included.
    needles: in the order of their positions.
    questions: in the order they are asked.
    tail: int32, all questions with their answers, and eos.
  """

  haystack: Haystack
  start: int
  length: int
  needles: tuple[PlacedNeedle, ...]
  questions: tuple[PlacedQuestion, ...]
  tail: np.ndarray

  @property
  def haystack_length(self) -> int:
    """Filler tokens: all that is neither needle nor question."""
    used = sum(len(n.tokens) for n in self.needles)
    return self.length - used - len(self.tail)


class NiahTask:
  """Tokenized templates of one source; draws recipes from them."""

  def __init__(self, source: SourceConfig, tokenizer: Tokenizer):
    """Tokenizes the templates part by part.

    Raises:
      ValueError: more questions than needles, or a vocabulary too small for
        random-id needles.
    """
    if not 1 <= source.num_questions <= source.num_needles:
      raise ValueError(
        f"num_questions = {source.num_questions}: must be in"
        f" 1..num_needles = {source.num_needles}"
      )
    self._source = source
    self._encode = tokenizer.encode
    self._needle = tuple(tokenizer.encode(s) for s in _NEEDLE)
    self._question = tuple(tokenizer.encode(s) for s in _QUESTION)
    self._eos = np.array([tokenizer.eos_id], np.int32)
    self._first_key = tokenizer.encode(" " + KEY)
    self._ids = _value_ids(source.needle, tokenizer)
    self.min_length = self._worst_case() + 1

  def draw(
    self,
    rng: np.random.Generator,
    *,
    length: int,
    haystack_size: int,
    depth: float | None = None,
  ) -> NiahRecipe:
    """Draws a recipe.

    What is drawn does not depend on `length`: the same generator state gives
    the same keys, values, relative depths and haystack start at any length.

    Args:
      rng: generator, consumed.
      length: tokens of the whole sample, at least `min_length`.
      haystack_size: tokens of the ring the haystack is cut from.
      depth: relative depth in [0, 1] of the needle that is asked first; None
        draws it like the others.

    Raises:
      ValueError: `length` is below what needles and questions take.
    """
    keys = self._draw_keys(rng)
    values = self._draw_values(rng, len(keys))
    asked = rng.permutation(len(keys))[: self._source.num_questions].tolist()
    where = rng.random(len(keys)).tolist()
    start = int(rng.random() * haystack_size)
    if depth is not None:
      where[asked[0]] = depth
    return self._place(length, start, keys, values, asked, where)

  def _place(
    self,
    length: int,
    start: int,
    keys: list[str],
    values: list[np.ndarray],
    asked: list[int],
    where: list[float],
  ) -> NiahRecipe:
    """Turns relative depths into positions in a sample of `length` tokens."""
    key_ids = [self._key_ids(k) for k in keys]
    order = sorted(range(len(keys)), key=where.__getitem__)
    tail, questions = self._tail(asked, order, key_ids, values)
    pieces = [self._needle_tokens(key_ids[i], values[i]) for i in order]
    base = length - len(tail)
    room = base - sum(map(len, pieces))
    if room < 1:
      raise ValueError(
        f"length = {length}: needles and questions take {length - room} tokens,"
        " and the haystack needs one more"
      )
    needles, used = [], 0
    for i, tokens in zip(order, pieces, strict=True):
      at = min(int(where[i] * (room + 1)), room) + used
      used += len(tokens)
      value_at = at + len(tokens) - len(self._needle[2]) - len(values[i])
      needles.append(PlacedNeedle(at, keys[i], tokens, values[i], value_at))
    asks = tuple(PlacedQuestion(base + q, n, base + a) for q, n, a in questions)
    kind = self._source.haystack
    return NiahRecipe(kind, start, length, tuple(needles), asks, tail)

  def _draw_keys(self, rng: np.random.Generator) -> list[str]:
    others = self._source.num_needles - 1
    while others:
      shape = (others, _KEY_LETTERS)
      letters = rng.integers(ord("A"), ord("Z") + 1, shape, np.uint8)
      keys = [row.tobytes().decode() for row in letters]
      if len(set(keys)) == others:
        return [KEY, *keys]
    return [KEY]

  def _draw_values(
    self, rng: np.random.Generator, count: int
  ) -> list[np.ndarray]:
    if self._source.needle is Needle.IDS:
      chosen = rng.integers(0, len(self._ids), (count, _NUM_IDS))
      return list(self._ids[chosen])
    low = 10 ** (_NUM_DIGITS - 1)
    numbers = [low + int(u * 9 * low) for u in rng.random(count).tolist()]
    return [self._encode(str(n)) for n in numbers]

  def _key_ids(self, key: str) -> np.ndarray:
    return self._first_key if key == KEY else self._encode(" " + key)

  def _needle_tokens(self, key: np.ndarray, value: np.ndarray) -> np.ndarray:
    head, middle, end = self._needle
    return np.concatenate([head, key, middle, value, end])

  def _tail(
    self,
    asked: list[int],
    order: list[int],
    keys: list[np.ndarray],
    values: list[np.ndarray],
  ) -> tuple[np.ndarray, list[tuple[int, int, int]]]:
    """Tokens of the end, and (start, needle, answer start) of each question."""
    parts, questions, used = [], [], 0
    for i in asked:
      question = [self._question[0], keys[i], self._question[1]]
      answer = used + sum(map(len, question))
      questions.append((used, order.index(i), answer))
      parts += [*question, values[i]]
      used = answer + len(values[i])
    return np.concatenate([*parts, self._eos]), questions

  def _worst_case(self) -> int:
    """Most tokens that needles, questions and eos can take."""
    encode, source = self._encode, self._source
    first = max(len(encode(" " + c)) for c in string.ascii_uppercase)
    other = max(len(encode(c)) for c in string.ascii_uppercase)
    key = first + (_KEY_LETTERS - 1) * other
    keys = [len(self._first_key)] + [key] * (source.num_needles - 1)
    digit = max(len(encode(str(d))) for d in range(10))
    value = _NUM_IDS if source.needle is Needle.IDS else _NUM_DIGITS * digit
    needle = sum(map(len, self._needle)) + value
    question = sum(map(len, self._question)) + value
    asked = sorted(keys, reverse=True)[: source.num_questions]
    needles = sum(keys) + len(keys) * needle
    return needles + sum(asked) + len(asked) * question + 1


def make_haystacks(text: np.ndarray, tokenizer: Tokenizer) -> Haystacks:
  """Rings of both kinds; `text` is the split to cut from."""
  return Haystacks(text, tokenizer.encode(NOISE))


def min_length(source: SourceConfig, tokenizer: Tokenizer) -> int:
  """Tokens a sample needs: needles, questions, eos, one of haystack."""
  return NiahTask(source, tokenizer).min_length


def evaluation_recipe(
  task: NiahTask,
  haystacks: Haystacks,
  source: SourceConfig,
  *,
  seed: int,
  sample: int,
  num_samples: int,
  length: int,
) -> NiahRecipe:
  """Recipe of one evaluation sample, reproducible alone.

  Sample `i` of `n` has relative depth (i + u) / n, with u uniform. Values,
  depth and haystack start depend on `seed` and `sample` only, so samples are
  paired over lengths. The stream is disjoint from every training stream.

  Args:
    task: templates of `source`.
    haystacks: rings of the held-out split.
    source: the kind of haystack and needle.
    seed: of the suite.
    sample: index, 0 <= sample < num_samples.
    num_samples: samples at this length.
    length: tokens of the sample, answer and eos included.
  """
  rng = make_rng(seed, EVAL, sample)
  depth = (sample + rng.random()) / num_samples
  size = len(haystacks.of(source.haystack))
  return task.draw(rng, length=length, haystack_size=size, depth=depth)


def segment(
  recipe: NiahRecipe, haystacks: Haystacks, start: int, stop: int
) -> np.ndarray:
  """Tokens `start..stop` of a sample as int32, and nothing else is made.

  Raises:
    ValueError: the range is not inside the sample.
  """
  if not 0 <= start <= stop <= recipe.length:
    raise ValueError(f"{start}..{stop} is not inside 0..{recipe.length}")
  ring = haystacks.of(recipe.haystack)
  out = np.empty(stop - start, np.int32)
  end, skipped = 0, 0  # end of the piece before; piece tokens so far
  for position, tokens in _pieces(recipe):
    low, high = max(end, start), min(position, stop)
    if low < high:
      filler = _ring(ring, recipe.start + low - skipped, high - low)
      out[low - start : high - start] = filler
    end = position + len(tokens)
    low, high = max(position, start), min(end, stop)
    if low < high:
      out[low - start : high - start] = tokens[low - position : high - position]
    skipped += len(tokens)
  return out


def segments(
  recipe: NiahRecipe, haystacks: Haystacks, size: int
) -> Iterator[np.ndarray]:
  """The whole sample in stretches of `size` tokens; the last may be shorter."""
  for start in range(0, recipe.length, size):
    stop = min(start + size, recipe.length)
    yield segment(recipe, haystacks, start, stop)


def render(recipe: NiahRecipe, haystacks: Haystacks) -> np.ndarray:
  """The whole sample, int32[length]."""
  return segment(recipe, haystacks, 0, recipe.length)


def answer_positions(recipe: NiahRecipe) -> np.ndarray:
  """Indices in the sample of the answer tokens (no eos), int64, ascending."""
  return np.concatenate(
    [
      np.arange(q.answer_position, q.answer_position + len(value))
      for q in recipe.questions
      for value in (recipe.needles[q.needle].value,)
    ]
  )


def unique_fraction(recipe: NiahRecipe, haystacks: Haystacks) -> float:
  """Share of the filler that is not a repetition of earlier filler."""
  size = len(haystacks.of(recipe.haystack))
  return min(1.0, size / recipe.haystack_length)


def describe(recipe: NiahRecipe) -> dict[str, Any]:
  """The recipe as plain numbers and strings, for a line of JSON."""
  return {
    "haystack": str(recipe.haystack),
    "start": recipe.start,
    "length": recipe.length,
    "needles": [
      {"position": n.position, "key": n.key, "value": n.value.tolist()}
      for n in recipe.needles
    ],
    "questions": [q.needle for q in recipe.questions],
  }


def _pieces(recipe: NiahRecipe) -> Iterator[tuple[int, np.ndarray]]:
  for needle in recipe.needles:
    yield needle.position, needle.tokens
  yield recipe.length - len(recipe.tail), recipe.tail


def _ring(tokens: np.ndarray, start: int, length: int) -> np.ndarray:
  start %= len(tokens)
  if start + length <= len(tokens):
    return tokens[start : start + length]
  return np.take(tokens, np.arange(start, start + length), mode="wrap")


def _value_ids(needle: Needle, tokenizer: Tokenizer) -> np.ndarray:
  if needle is not Needle.IDS:
    return np.empty(0, np.int32)
  special = (tokenizer.eos_id, tokenizer.pad_id)
  ids = np.arange(_FIRST_ID, tokenizer.vocab_size, dtype=np.int32)
  ids = ids[~np.isin(ids, special)]
  if len(ids) < 2:
    raise ValueError(
      f"needle = 'ids': needs ids above {_FIRST_ID}, the tokenizer has"
      f" {tokenizer.vocab_size}"
    )
  return ids
