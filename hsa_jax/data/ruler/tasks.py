"""All thirteen tasks by name: what each needs, and where it is defined."""

import enum
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Int

from hsa_jax.data.ruler import assets, niah
from hsa_jax.data.ruler.counting import CommonWordsTask, FrequentWordsTask
from hsa_jax.data.ruler.essay import Essay, make_essay
from hsa_jax.data.ruler.niah import Hay, NiahTask
from hsa_jax.data.ruler.prompt import Request, RulerPrompt
from hsa_jax.data.ruler.reading import ReadingTask
from hsa_jax.data.ruler.tracing import TracingTask
from hsa_jax.data.tokenizer import Tokenizer

PROTOCOL = "ruler-13"
QA = ("qa_1", "qa_2")
TASKS = (*niah.SPECS, TracingTask.name, "cwe", "fwe", *QA)


class EssaySource(enum.StrEnum):
  """Text that needles are hidden in by the essay tasks."""

  ESSAY = "essay"  # RULER's: essays of P. Graham, fetched, never shipped
  ESSAY_FREE = "essay_free"  # the held-out split of the token store


class Limit(NamedTuple):
  """The greatest length at which a task means what it says.

  Attributes:
    length: tokens.
    why: the reason, for a message and the docs.
  """

  length: int
  why: str


_128K = 1 << 17
LIMITS = {
  "cwe": Limit(
    _128K, "its list has a few thousand different words and would run out"
  ),
  "fwe": Limit(
    _128K,
    "any part of a longer text shows the same three words most often, so that"
    " a longer one asks for nothing more",
  ),
  "qa_1": Limit(
    _128K,
    "there are 1,204 different paragraphs, and repeating them repeats"
    " the one that holds the answer",
  ),
  "qa_2": Limit(
    _128K,
    "published figures end there, and the different documents end soon after",
  ),
}


class RulerTask(Protocol):
  """Makes the samples of one task."""

  name: str

  def build(self, request: Request) -> RulerPrompt:
    """One sample.

    Raises:
      TooShort, TooLong: the length is not one the sample can have.
    """
    ...


class Texts(NamedTuple):
  """Where text comes from.

  Attributes:
    folder: of the assets.
    source: what the essay tasks read.
    free: tokens of the held-out split, documents ended by eos; read only with
      `EssaySource.ESSAY_FREE`.
  """

  folder: Path
  source: EssaySource
  free: Int[np.ndarray, " n"]


class TaskMaker:
  """Makes tasks; reads and tokenizes each text at most once."""

  def __init__(self, tokenizer: Tokenizer, texts: Texts):
    self._tokenizer, self._texts = tokenizer, texts
    self._tasks: dict[str, RulerTask] = {}
    self._essay: Essay | None = None

  def task(self, name: str) -> RulerTask:
    """The task of that name.

    Raises:
      AssetError: a file it needs is missing or damaged.
    """
    if name not in self._tasks:
      self._tasks[name] = self._make(name)
    return self._tasks[name]

  def _make(self, name: str) -> RulerTask:
    encode, folder = self._tokenizer.encode, self._texts.folder
    if name == "qa_1":
      return ReadingTask(name, encode, assets.read_squad(folder))
    if name == "qa_2":
      return ReadingTask(name, encode, assets.read_hotpot(folder))
    if name == "vt":
      return TracingTask(encode)
    if name == "fwe":
      return FrequentWordsTask(encode)
    words = assets.read_words(folder)
    if name == "cwe":
      return CommonWordsTask(encode, words)
    needs_essay = niah.SPECS[name].hay is Hay.ESSAY
    return NiahTask(name, encode, words, self.essay if needs_essay else None)

  @property
  def essay(self) -> Essay:
    """What the essay tasks hide needles in."""
    if self._essay is None:
      source, encode = self._texts.source, self._tokenizer.encode
      if source is EssaySource.ESSAY:
        text = assets.read_essays(self._texts.folder)
      else:
        text = read_free(self._texts.free, self._tokenizer)
      self._essay = make_essay(str(source), text, encode)
    return self._essay


def haystack(name: str, source: EssaySource) -> str:
  """What a result line calls the filler of a task."""
  if name in niah.SPECS:
    hay = niah.SPECS[name].hay
    return str(source if hay is Hay.ESSAY else hay)
  names = {"vt": "noise", "qa_1": "squad", "qa_2": "hotpotqa"}
  return names.get(name, "words")


def needle(name: str) -> str:
  """What a result line calls the kind of value that is asked."""
  return str(niah.SPECS[name].value) if name in niah.SPECS else ""


def read_free(tokens: Int[np.ndarray, " n"], tokenizer: Tokenizer) -> str:
  """Text of a split, its documents separated by white space."""
  ends = np.flatnonzero(np.asarray(tokens) == tokenizer.eos_id)
  parts = np.split(np.asarray(tokens), ends)
  return "\n".join(tokenizer.decode(part.tolist()) for part in parts)
