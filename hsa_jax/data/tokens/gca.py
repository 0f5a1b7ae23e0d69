"""The needles of GCA: a passkey, keys with values, and paths of several hops.

Names are random token ids (arXiv 2410.01651 and its public code): ten for the
passkey, five for a key, a value or a place of a path. Where the wording of a
question was not to be had it is ours: those of keys and of paths.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Int

from hsa_jax.config.fields import SourceConfig, Task
from hsa_jax.data.sample import Answer
from hsa_jax.data.tokenizer import Tokenizer
from hsa_jax.data.tokens.layout import (
  Tail,
  TokenSample,
  in_order,
  lay_out,
  unique_fraction,
)
from hsa_jax.data.tokens.parts import Fixed, Joined
from hsa_jax.data.tokens.rings import Haystacks, ordinary_ids

NUM_PASSKEY_IDS, NUM_NAME_IDS = 10, 5
_PASSKEY = ("|The passkey is:", "|")
_PASSKEY_QUESTION = "|What is the passkey? The passkey is"
_KEY = ("|One of the special magic numbers for ", " is ", "|")
_KEY_QUESTION = ("|What is the special magic number for ", "? It is ")
_HOP = ("|DEF ", "->", "|")
_PATH_QUESTION = "|TRACE "

Names = Int[np.ndarray, "n ids"]


class GcaTask:
  """Tokenized templates of one source; meets `TokenTask`.

  `num_needles` counts passkeys (one), keys, or links of paths, of which
  `chain_length` make a path; `num_questions` keys or paths are asked for.
  """

  def __init__(self, source: SourceConfig, tokenizer: Tokenizer):
    """Tokenizes the templates part by part.

    Raises:
      ValueError: more is asked for than there is, or paths do not divide the
        links.
    """
    hops = source.task is Task.GCA_HOPS
    self._each = source.chain_length if hops else 1
    count, asked = source.num_needles, source.num_questions
    if self._each < 1 or count % self._each:
      raise ValueError(
        f"num_needles = {count}: must be a multiple of chain_length ="
        f" {self._each}"
      )
    self._things = count // self._each
    if not 1 <= asked <= self._things:
      raise ValueError(
        f"num_questions = {asked}: must be in 1..{self._things}, what there is"
        " to ask for"
      )
    self._source, self._encode = source, tokenizer.encode
    self._ids = ordinary_ids(tokenizer)
    self._eos = np.array([tokenizer.eos_id], np.int32)
    # All names of a kind have one length, so all samples take the same room.
    names = np.zeros((self._num_names, self._width), np.int32)
    needles, tail = self._write(names, list(range(asked)))
    self.min_length = sum(map(len, needles)) + tail.length + 1

  def draw(
    self,
    rng: np.random.Generator,
    haystacks: Haystacks,
    *,
    length: int,
    depth: float | None = None,
  ) -> TokenSample:
    """Draws a sample; see `TokenTask.draw`."""
    source, ring = self._source, haystacks.of(self._source.haystack)
    size = (self._num_names, self._width)
    names = self._ids[rng.integers(0, len(self._ids), size)]
    asked = rng.permutation(self._things)[: source.num_questions].tolist()
    where = rng.random(source.num_needles).tolist()
    start = int(rng.random() * len(ring))
    first = asked[0] * self._each
    if depth is not None:
      where[first] = depth
    needles, tail = self._write(names, asked)
    layout = lay_out(ring, start, needles, where, tail, length)
    recipe = {
      "haystack": str(source.haystack),
      "start": start,
      "length": length,
      "positions": [layout.starts[i] for i in in_order(where)],
      "names": names.tolist(),
      "asked": asked,
    }
    unique = unique_fraction(ring, layout.body.filler)
    at = layout.depths[first]
    return TokenSample(layout.body, layout.answer, at, unique, recipe)

  @property
  def _width(self) -> int:
    """Ids of a name."""
    single = self._source.task is Task.GCA_PASSKEY
    return NUM_PASSKEY_IDS if single else NUM_NAME_IDS

  @property
  def _num_names(self) -> int:
    """Passkeys; keys and values; or places, one more than links in a path."""
    if self._source.task is Task.GCA_PASSKEY:
      return self._things
    return self._things * (self._each + 1)

  def _write(
    self, names: Names, asked: list[int]
  ) -> tuple[list[np.ndarray], Tail]:
    """All needles, and the questions with eos."""
    writers: dict[Task, Callable[..., list[np.ndarray]]] = {
      Task.GCA_PASSKEY: self._write_passkey,
      Task.GCA_MULTI_KEY: self._write_keys,
      Task.GCA_HOPS: self._write_paths,
    }
    tail = Tail()
    needles = writers[self._source.task](names, asked, tail)
    tail.write(self._eos)
    return needles, tail

  def _write_passkey(
    self, names: Names, asked: list[int], tail: Tail
  ) -> list[np.ndarray]:
    head, end = map(self._encode, _PASSKEY)
    for i in asked:
      tail.write(self._encode(_PASSKEY_QUESTION))
      tail.ask(names[i], needle=i, offset=len(head))
    return [np.concatenate([head, name, end]) for name in names]

  def _write_keys(
    self, names: Names, asked: list[int], tail: Tail
  ) -> list[np.ndarray]:
    head, middle, end = map(self._encode, _KEY)
    before, after = map(self._encode, _KEY_QUESTION)
    keys, values = names[::2], names[1::2]
    for i in asked:
      tail.write(before, keys[i], after)
      offset = len(head) + NUM_NAME_IDS + len(middle)
      tail.ask(values[i], needle=i, offset=offset)
    pairs = zip(keys, values, strict=True)
    return [np.concatenate([head, k, middle, v, end]) for k, v in pairs]

  def _write_paths(
    self, names: Names, asked: list[int], tail: Tail
  ) -> list[np.ndarray]:
    head, arrow, end = map(self._encode, _HOP)
    paths = names.reshape(self._things, self._each + 1, NUM_NAME_IDS)
    for i in asked:
      tail.write(self._encode(_PATH_QUESTION), paths[i, 0])
      for hop in range(self._each):
        tail.write(arrow)
        offset = len(head) + NUM_NAME_IDS + len(arrow)
        needle = i * self._each + hop
        tail.ask(paths[i, hop + 1], needle=needle, offset=offset)
    return [
      np.concatenate([head, path[hop], arrow, path[hop + 1], end])
      for path in paths
      for hop in range(self._each)
    ]


def first_of_name(answer: Answer, tokenizer: Tokenizer) -> Answer:
  """The first id of every name that is asked for, as published for one."""
  del tokenizer
  return Answer(*(part[::NUM_NAME_IDS] for part in answer))


def first_of_passkey(answer: Answer, tokenizer: Tokenizer) -> Answer:
  """The first id alone, as published."""
  del tokenizer
  return Answer(*(part[::NUM_PASSKEY_IDS] for part in answer))


def aligned(
  draw: Callable[[int], TokenSample],
  *,
  length: int,
  every: int,
  filler: Int[np.ndarray, " n"],
) -> TokenSample:
  """A sample whose answer begins with the second token of a chunk.

  Where a chunk reads what the landmark before it retrieved, that landmark has
  seen the question then, but for its last token. GCA is scored so.

  Args:
    draw: the sample at any length, the same but for its filler.
    length: tokens of the result.
    every: tokens of a chunk.
    filler: what stands behind eos, where no answer sees it; repeated.
  """
  sample = draw(length)
  cut = (int(sample.answer.positions[0]) - 1) % every
  if not cut:
    return sample
  sample = draw(length - cut)
  body = Joined([sample.body, Fixed(np.resize(filler, cut).astype(np.int32))])
  recipe = {**sample.recipe, "length": length, "behind_eos": cut}
  return sample._replace(body=body, recipe=recipe)
